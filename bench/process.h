// Child processes of a benchmark, and what the system says of them.
#ifndef FLUX_BENCH_PROCESS_H_
#define FLUX_BENCH_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace flux::bench {

// A child; killed and reaped at destruction if it still runs. Not thread-safe.
class Process {
 public:
  Process() = default;
  ~Process();
  Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  Process& operator=(Process&& other) noexcept;

  // `program` is a path. The child dies with this process (Linux: PR_SET_PDEATHSIG).
  static absl::StatusOr<Process> Start(const std::string& program,
                                       std::vector<std::string> arguments);

  pid_t pid() const { return pid_; }
  bool Running();
  void Signal(int number) const;
  // SIGTERM, then after `patience` SIGKILL; reaps. The exit status as waitpid gives it.
  int Stop(absl::Duration patience = absl::Seconds(20));
  double CpuSeconds() const;       // user and system, so far
  uint64_t ResidentBytes() const;  // now

 private:
  pid_t pid_ = 0;
};

// A directory that is removed with all it holds at destruction.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }
  uint64_t BytesOnDisk() const;  // blocks in use of all files

 private:
  std::string path_;
};

// The path of `name` beside this program.
std::string Beside(const std::string& name);

// Waits for a --port-file. DeadlineExceeded; or Unavailable if the process ended.
absl::StatusOr<int> WaitForPort(const std::string& file, Process& process, absl::Duration timeout);

}  // namespace flux::bench

#endif  // FLUX_BENCH_PROCESS_H_
