// FLUX_STRUCT(Type, members…): JSON both ways for a plain struct, and names for
// Value<Type>::Field(&Type::member).
//
//   namespace charts {
//   struct Page { int number = 0; std::string text; };
//   FLUX_STRUCT(Page, number, text)
//   }
//
// Put it right after the struct, in the struct's own namespace (argument-dependent look-up finds it
// there). Members that are not listed are neither written nor read. Reading keeps a member's
// default when the JSON lacks it and ignores names it does not know, so that values written by an
// older or a newer program stay readable. Limits: 256 members; the type's name may not contain a
// comma.
#ifndef FLUX_STRUCT_H_
#define FLUX_STRUCT_H_

#include <string_view>
#include <tuple>
#include <type_traits>

namespace flux::internal {

// One listed member: its name in JSON and where it lies.
template <typename Class, typename Type>
struct Member {
  std::string_view name;
  Type Class::*pointer;
};

template <typename Class, typename Type>
constexpr Member<Class, Type> MakeMember(std::string_view name, Type Class::*pointer) {
  return {name, pointer};
}

// True for a type that FLUX_STRUCT was said of.
template <typename T>
concept Struct = requires(const T* type) {
  FluxMembers(type);
  FluxTypeName(type);
};

// The name under which `member` is listed; empty: it is not.
template <Struct Class, typename Type>
constexpr std::string_view MemberName(Type Class::*member) {
  std::string_view name;
  auto match = [&](const auto& candidate) {
    if constexpr (std::is_same_v<decltype(candidate.pointer), Type Class::*>) {
      if (candidate.pointer == member) name = candidate.name;
    }
  };
  std::apply([&](const auto&... candidates) { (match(candidates), ...); },
             FluxMembers(static_cast<const Class*>(nullptr)));
  return name;
}

}  // namespace flux::internal

// The expansion below rescans its argument often enough for 256 members.
#define FLUX_INTERNAL_PARENS ()
#define FLUX_INTERNAL_EXPAND(...) \
  FLUX_INTERNAL_EXPAND4(FLUX_INTERNAL_EXPAND4(FLUX_INTERNAL_EXPAND4(__VA_ARGS__)))
#define FLUX_INTERNAL_EXPAND4(...) \
  FLUX_INTERNAL_EXPAND3(           \
      FLUX_INTERNAL_EXPAND3(FLUX_INTERNAL_EXPAND3(FLUX_INTERNAL_EXPAND3(__VA_ARGS__))))
#define FLUX_INTERNAL_EXPAND3(...) \
  FLUX_INTERNAL_EXPAND2(           \
      FLUX_INTERNAL_EXPAND2(FLUX_INTERNAL_EXPAND2(FLUX_INTERNAL_EXPAND2(__VA_ARGS__))))
#define FLUX_INTERNAL_EXPAND2(...) \
  FLUX_INTERNAL_EXPAND1(           \
      FLUX_INTERNAL_EXPAND1(FLUX_INTERNAL_EXPAND1(FLUX_INTERNAL_EXPAND1(__VA_ARGS__))))
#define FLUX_INTERNAL_EXPAND1(...) __VA_ARGS__

#define FLUX_INTERNAL_MEMBERS(Type, ...) \
  __VA_OPT__(FLUX_INTERNAL_EXPAND(FLUX_INTERNAL_MEMBERS_HELPER(Type, __VA_ARGS__)))
#define FLUX_INTERNAL_MEMBERS_HELPER(Type, member, ...) \
  ::flux::internal::MakeMember(#member, &Type::member)  \
      __VA_OPT__(, FLUX_INTERNAL_MEMBERS_AGAIN FLUX_INTERNAL_PARENS(Type, __VA_ARGS__))
#define FLUX_INTERNAL_MEMBERS_AGAIN() FLUX_INTERNAL_MEMBERS_HELPER

#define FLUX_STRUCT(Type, ...)                                          \
  [[maybe_unused]] constexpr auto FluxMembers(const Type*) {            \
    return ::std::make_tuple(FLUX_INTERNAL_MEMBERS(Type, __VA_ARGS__)); \
  }                                                                     \
  [[maybe_unused]] constexpr ::std::string_view FluxTypeName(const Type*) { return #Type; }

#endif  // FLUX_STRUCT_H_
