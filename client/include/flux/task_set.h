// The task functions of a program, by name: what a worker serves and an inline run calls.
#ifndef FLUX_TASK_SET_H_
#define FLUX_TASK_SET_H_

#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "flux/task.h"

namespace flux {

// Filled at start-up, read from then on. Registering is not thread-safe, looking up is.
//
//   flux::TaskSet tasks;
//   tasks.Register(kCode, [](const Page& page) -> absl::StatusOr<Codes> {…});
class TaskSet {
 public:
  // `function` takes the task's parameters, after an optional TaskContext&, and returns R,
  // absl::StatusOr<R> or flux::Outcome<R>. It is called from many threads at once. A second
  // function for a name is a mistake that status() reports.
  template <typename R, typename... Args, typename F>
  void Register(const Task<R(Args...)>& task, F function) {
    using Signature = typename Task<R(Args...)>::Signature;
    if constexpr (std::is_function_v<std::remove_pointer_t<F>>) {
      RegisterRaw(task.name(), internal::MakeHandler(+function, std::type_identity<Signature>()));
    } else {
      RegisterRaw(task.name(),
                  internal::MakeHandler(std::move(function), std::type_identity<Signature>()));
    }
  }

  // The same for a function that works on payloads.
  void RegisterRaw(std::string_view name, internal::TaskHandler handler);

  // InvalidArgument: a bad name; AlreadyExists: a name registered twice. The first mistake made.
  const absl::Status& status() const { return status_; }

  // Null if there is none. Valid for the life of the set.
  const internal::TaskHandler* Find(std::string_view name) const;
  // Sorted.
  std::vector<std::string> names() const;
  bool empty() const { return handlers_.empty(); }

 private:
  std::map<std::string, internal::TaskHandler, std::less<>> handlers_;
  absl::Status status_;
};

}  // namespace flux

#endif  // FLUX_TASK_SET_H_
