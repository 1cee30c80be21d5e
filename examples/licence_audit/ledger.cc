#include "ledger.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace licence_audit {

absl::StatusOr<Ledger> Ledger::Open(const std::string& path) {
  if (path.empty()) return Ledger(-1);
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot open the ledger ", path, ": ", std::strerror(errno)));
  }
  return Ledger(fd);
}

Ledger::Ledger(Ledger&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Ledger::~Ledger() {
  if (fd_ >= 0) close(fd_);
}

absl::Status Ledger::Append(std::string_view task, std::string_view subject,
                            std::string_view token) const {
  if (fd_ < 0) return absl::OkStatus();
  std::string line;
  line.append(task).append("\t").append(subject).append("\t").append(token).append("\t");
  absl::StrAppend(&line, getpid(), "\n");
  // A short write would tear the line, and a line in two halves counts twice.
  if (write(fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return absl::UnavailableError(
        absl::StrCat("cannot append to the ledger: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace licence_audit
