// flux::Page: some of the items of a list too long for one message.
#ifndef FLUX_PAGE_H_
#define FLUX_PAGE_H_

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "flux/struct.h"
#include "flux/task.h"
#include "flux/value.h"

namespace flux {

// What a task of Graph::MapPages answers: the items at a cursor, and the cursor of the page after
// them. A value object; thread-compatible. Travels as JSON, {"items": […], "next": cursor}, so T
// has a JSON form. Limits: a page is one payload (4 MiB unless the server says otherwise).
//
//   inline constexpr flux::Task<flux::Page<Order>(std::string)> kListOrders{"orders.list"};
template <typename T>
struct Page {
  std::vector<T> items;
  std::optional<std::string> next;  // unset: this page is the last

  bool operator==(const Page&) const = default;
};

template <typename T>
constexpr auto FluxMembers(const Page<T>*) {
  return std::make_tuple(internal::MakeMember("items", &Page<T>::items),
                         internal::MakeMember("next", &Page<T>::next));
}
template <typename T>
constexpr std::string_view FluxTypeName(const Page<T>*) {
  return "flux.Page";
}

namespace internal {

// The item of a Page; `value` is false for every other type.
template <typename T>
struct PageTraits : std::false_type {};
template <typename T>
struct PageTraits<Page<T>> : std::true_type {
  using Item = T;
};

// The same of the page a task answers to a cursor.
template <typename T>
struct PageTaskTraits : std::false_type {};
template <typename R, typename Cursor>
requires(
    std::is_same_v<std::remove_cvref_t<Cursor>, std::string>) struct PageTaskTraits<Task<R(Cursor)>>
    : PageTraits<R> {
};

}  // namespace internal
}  // namespace flux

#endif  // FLUX_PAGE_H_
