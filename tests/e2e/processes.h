// Real processes for the end-to-end tests: coordinators and workers that are started, killed,
// suspended and watched, each with its files in a directory of the test's own.
#ifndef FLUX_TESTS_E2E_PROCESSES_H_
#define FLUX_TESTS_E2E_PROCESSES_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/e2e/api.h"

namespace flux::e2e {

// How long a condition may take to come true. Passing it is a failure of the test; nothing waits
// for it to pass. Generous: sanitizer builds on a busy machine are an order slower.
inline constexpr absl::Duration kPatience = absl::Seconds(90);

// Asks until `condition` holds. False after `patience`.
bool Eventually(const std::function<bool()>& condition, absl::Duration patience = kPatience);

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, std::string_view bytes);

// A directory that is removed with all it holds at destruction.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A port of the loopback address that nobody else gets while this object lives, but that a child
// may listen on: a coordinator that is started again must be found where it was.
class ReservedPort {
 public:
  ReservedPort();
  ~ReservedPort();
  ReservedPort(const ReservedPort&) = delete;
  ReservedPort& operator=(const ReservedPort&) = delete;
  int port() const { return port_; }
  std::string target() const;

 private:
  int socket_ = -1;  // bound, never listening
  int port_ = 0;
};

struct Command {
  std::string program;
  std::vector<std::string> arguments;
  std::map<std::string, std::string> environment;  // over the test's own, which loses its FLUX_*
  std::string output;                              // file that stdout is appended to; empty: log
  std::string log;                                 // file that stderr is appended to
};

// A child; killed and reaped at destruction. It also dies with the thread that started it, so that
// an aborted test leaves nothing behind. Not thread-safe.
class Process {
 public:
  Process() = default;
  ~Process() { Kill(); }
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;

  static absl::StatusOr<Process> Start(const Command& command);

  pid_t pid() const { return pid_; }
  bool running();
  void Signal(int number) const;
  // SIGKILL, and reaps. No-op if it has ended.
  void Kill();
  // Waits for the end: the status as waitpid(2) gives it; none after `patience`.
  std::optional<int> Wait(absl::Duration patience = kPatience);
  // SIGTERM, then Wait.
  std::optional<int> Terminate(absl::Duration patience = kPatience);

 private:
  void Reap(int status);

  pid_t pid_ = 0;
  int pidfd_ = -1;
  std::optional<int> status_;
};

// Runs a program to its end.
struct Finished {
  int exit_code = -1;  // -1: ended by a signal, or not within the patience
  std::string output;
  std::string log;
};
Finished RunToEnd(const std::string& program, std::vector<std::string> arguments,
                  std::map<std::string, std::string> environment = {});

// Says whether a status of Process::Wait is that of a process killed by SIGKILL, or its exit code.
bool WasKilled(const std::optional<int>& status);
int ExitCode(const std::optional<int>& status);  // -1: it did not exit by itself

// Settings of fluxd by name; given as flags.
using Flags = std::map<std::string, std::string>;

// fluxd on a data directory and a port of its own, both kept over restarts.
class Fluxd {
 public:
  explicit Fluxd(const TempDir& directory);

  // Settings that every start gets; those of one start win.
  void set_flags(Flags flags) { flags_ = std::move(flags); }
  // A program and arguments that fluxd's own follow, and that ends by executing it.
  void set_wrapper(std::vector<std::string> wrapper) { wrapper_ = std::move(wrapper); }
  // Begins a start; does not wait.
  absl::Status Launch(const Flags& more = {},
                      const std::map<std::string, std::string>& environment = {});
  // Waits until it serves. Aborted: it ended first, the message has its log's end.
  absl::Status AwaitServing();
  // Both.
  absl::Status Start(const Flags& more = {},
                     const std::map<std::string, std::string>& environment = {});

  Process& process() { return process_; }
  void Kill() { process_.Kill(); }
  std::string target() const { return port_.target(); }
  const std::string& data() const { return data_; }
  std::string log() const { return ReadFile(log_); }
  // To this start of it: a new connection each.
  Api& api() { return *api_; }

 private:
  const ReservedPort port_;
  const std::string data_;
  const std::string log_;
  const std::string port_file_;
  Flags flags_;
  std::vector<std::string> wrapper_;
  Process process_;
  std::unique_ptr<Api> api_;
};

// One line of a ledger: what a worker's function did, told by itself (ledger_worker.cc).
struct LedgerLine {
  std::string event;  // "begin", "end"
  std::string worker;
  std::string token;
  std::string task;
  std::string workflow_id;
  std::string step;
  int attempt = 0;
  std::string detail;  // of an end: what it answered

  // Parts of the token: incarnation.run.frame.step.generation.delivery
  std::string run() const;
  uint64_t delivery() const;
};

// What a test and its workers share: a ledger that every execution of a function is written to,
// and gates that functions wait at.
class Ledger {
 public:
  explicit Ledger(const TempDir& directory);

  const std::string& path() const { return path_; }
  const std::string& gates() const { return gates_; }
  // Lets functions through that wait, or come to wait, at `name`.
  void OpenGate(const std::string& name) const;

  std::vector<LedgerLine> Read() const;
  // Lines with this event whose task (or workflow id, or worker) is as said; empty: any.
  struct Filter {
    std::string event = {}, task = {}, workflow_id = {}, worker = {};
  };
  std::vector<LedgerLine> Find(const Filter& filter) const;
  // Waits until `count` lines are there. Fewer after the patience.
  std::vector<LedgerLine> Await(const Filter& filter, size_t count = 1) const;

 private:
  std::string path_;
  std::string gates_;
};

// A process of ledger_worker.cc.
struct WorkerFlags {
  std::string id = {};
  std::string queue = "default";
  int slots = 4;
  int prefetch = 0;
  int dawdle_ms = 0;  // each function takes up to so long
};

class WorkerProcess {
 public:
  static absl::StatusOr<WorkerProcess> Start(const TempDir& directory, const Ledger& ledger,
                                             const std::string& target, const WorkerFlags& flags);
  const std::string& id() const { return id_; }
  Process& process() { return process_; }

 private:
  std::string id_;
  Process process_;
};

// A directory, a coordinator and a ledger a test; the logs are shown when it fails.
class EndToEnd : public ::testing::Test {
 protected:
  EndToEnd();
  void TearDown() override;

  // fluxd's flags of this test, over the common ones; to be called before the first start.
  void SetFlags(Flags flags);
  void StartFluxd(const Flags& more = {},
                  const std::map<std::string, std::string>& environment = {});
  void KillFluxd() { fluxd_.Kill(); }
  WorkerProcess& StartWorker(WorkerFlags flags);
  WorkerProcess& worker(const std::string& id);
  Api& api() { return fluxd_.api(); }

  TempDir directory_;
  Ledger ledger_{directory_};
  Fluxd fluxd_{directory_};
  std::map<std::string, WorkerProcess> workers_;
};

}  // namespace flux::e2e

#endif  // FLUX_TESTS_E2E_PROCESSES_H_
