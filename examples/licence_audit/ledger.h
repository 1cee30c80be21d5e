// A file beside the system under demonstration that says which task ran when: one line an execution
// of a task.
#ifndef LICENCE_AUDIT_LEDGER_H_
#define LICENCE_AUDIT_LEDGER_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace licence_audit {

// Lines are "task <tab> what it worked on <tab> fencing token <tab> pid". Each is one write to a
// file opened for appending, so that many processes share one ledger, and it outlives a kill -9 of
// any of them. Thread-safe; movable.
class Ledger {
 public:
  // An empty path gives a ledger that keeps nothing. Unavailable: the file cannot be opened.
  static absl::StatusOr<Ledger> Open(const std::string& path);
  Ledger(Ledger&& other) noexcept;
  Ledger(const Ledger&) = delete;
  ~Ledger();

  absl::Status Append(std::string_view task, std::string_view subject,
                      std::string_view token) const;

 private:
  explicit Ledger(int fd) : fd_(fd) {}
  int fd_;  // -1: keeps nothing
};

}  // namespace licence_audit

#endif  // LICENCE_AUDIT_LEDGER_H_
