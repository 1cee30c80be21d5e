#include "tests/e2e/processes.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace flux::e2e {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kPollInterval = absl::Milliseconds(2);
constexpr size_t kLogShown = 6'000;

std::string Tail(const std::string& text) {
  return text.size() <= kLogShown ? text : "…" + text.substr(text.size() - kLogShown);
}

int OpenAppend(const std::string& path) {
  return ::open(path.empty() ? "/dev/null" : path.c_str(),
                O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

}  // namespace

bool Eventually(const std::function<bool()>& condition, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(kPollInterval);
  }
  return true;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
  ASSERT_TRUE(out.flush()) << path;
}

// ---- directories and ports
// ---------------------------------------------------------------------------------------

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "flux-e2e-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    ADD_FAILURE() << "cannot make a directory like " << pattern;
    std::abort();
  }
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

ReservedPort::ReservedPort() {
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // With SO_REUSEADDR on both sides a port that nobody listens on may be bound twice; without the
  // bind here it could become the source port of some connection in between.
  const int on = 1;
  ::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    ADD_FAILURE() << "no port: errno " << errno;
    std::abort();
  }
  port_ = ntohs(address.sin_port);
}

ReservedPort::~ReservedPort() { ::close(socket_); }

std::string ReservedPort::target() const { return absl::StrCat("127.0.0.1:", port_); }

// ---- processes
// ---------------------------------------------------------------------------------------------------

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::exchange(other.pidfd_, -1)),
      status_(std::exchange(other.status_, std::nullopt)) {}

Process& Process::operator=(Process&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(pidfd_, other.pidfd_);
  std::swap(status_, other.status_);
  return *this;
}

absl::StatusOr<Process> Process::Start(const Command& command) {
  if (::access(command.program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("no program ", command.program, ": build it first"));
  }
  std::vector<std::string> arguments = command.arguments;
  std::string program = command.program;
  std::vector<char*> argv = {program.data()};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    const std::string name = text.substr(0, text.find('='));
    if (name.rfind("FLUX_", 0) != 0 && !command.environment.contains(name)) {
      variables.push_back(text);
    }
  }
  for (const auto& [name, value] : command.environment) variables.push_back(name + "=" + value);
  std::vector<char*> envp;
  for (std::string& variable : variables) envp.push_back(variable.data());
  envp.push_back(nullptr);

  const int log = OpenAppend(command.log);
  const int output = command.output.empty() ? ::dup(log) : OpenAppend(command.output);
  const int input = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  Process process;
  process.pid_ = ::fork();
  if (process.pid_ == 0) {
    // Only what is safe after a fork of a process with threads.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(input, STDIN_FILENO);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::execve(program.c_str(), argv.data(), envp.data());
    ::_exit(127);
  }
  ::close(log);
  ::close(output);
  ::close(input);
  if (process.pid_ < 0) {
    process.pid_ = 0;
    return absl::UnavailableError(absl::StrCat("fork failed: errno ", errno));
  }
  process.pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, process.pid_, 0));
  if (process.pidfd_ < 0) return absl::UnavailableError("pidfd_open failed");
  return process;
}

void Process::Reap(int status) {
  status_ = status;
  pid_ = 0;
  ::close(pidfd_);
  pidfd_ = -1;
}

bool Process::running() { return pid_ != 0 && !Wait(absl::ZeroDuration()).has_value(); }

void Process::Signal(int number) const {
  if (pid_ != 0) ::kill(pid_, number);
}

void Process::Kill() {
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  ::waitpid(pid_, &status, 0);
  Reap(status);
}

std::optional<int> Process::Wait(absl::Duration patience) {
  if (pid_ == 0) return status_;
  pollfd event{pidfd_, POLLIN, 0};
  if (::poll(&event, 1, static_cast<int>(absl::ToInt64Milliseconds(patience))) <= 0) {
    return std::nullopt;
  }
  int status = 0;
  ::waitpid(pid_, &status, 0);
  Reap(status);
  return status_;
}

std::optional<int> Process::Terminate(absl::Duration patience) {
  Signal(SIGTERM);
  return Wait(patience);
}

Finished RunToEnd(const std::string& program, std::vector<std::string> arguments,
                  std::map<std::string, std::string> environment) {
  const TempDir directory;
  Command command{program, std::move(arguments), std::move(environment), directory / "out",
                  directory / "err"};
  Finished finished;
  absl::StatusOr<Process> process = Process::Start(command);
  EXPECT_TRUE(process.ok()) << process.status();
  if (process.ok()) finished.exit_code = ExitCode(process->Wait());
  finished.output = ReadFile(command.output);
  finished.log = ReadFile(command.log);
  return finished;
}

bool WasKilled(const std::optional<int>& status) {
  return status.has_value() && WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL;
}

int ExitCode(const std::optional<int>& status) {
  return status.has_value() && WIFEXITED(*status) ? WEXITSTATUS(*status) : -1;
}

// ---- fluxd
// -------------------------------------------------------------------------------------------------------

Fluxd::Fluxd(const TempDir& directory)
    : data_(directory / "data"),
      log_(directory / "fluxd.log"),
      port_file_(directory / "fluxd.port"),
      api_(std::make_unique<Api>(target())) {}

absl::Status Fluxd::Launch(const Flags& more,
                           const std::map<std::string, std::string>& environment) {
  process_.Kill();
  std::error_code ignored;
  fs::remove(port_file_, ignored);
  Flags flags = more;
  flags.insert(flags_.begin(), flags_.end());
  // Few shards, so that one restart touches all that a test wrote; no disk kept aside.
  flags.insert({{"data", data_},
                {"listen", target()},
                {"port-file", port_file_},
                {"shards", "8"},
                {"reserve-bytes", "0"},
                {"ballast-bytes", "0"},
                {"drain-timeout", "30s"}});
  std::vector<std::string> arguments = wrapper_;
  arguments.emplace_back(FLUX_E2E_FLUXD);
  for (const auto& [name, value] : flags) arguments.push_back(absl::StrCat("--", name, "=", value));
  const std::string program = arguments.front();
  arguments.erase(arguments.begin());
  absl::StatusOr<Process> process =
      Process::Start({program, std::move(arguments), environment, "", log_});
  if (!process.ok()) return process.status();
  process_ = *std::move(process);
  // A connection to the one before would fail its first call.
  api_ = std::make_unique<Api>(target());
  return absl::OkStatus();
}

absl::Status Fluxd::AwaitServing() {
  bool ended = false;
  const bool serves = Eventually([&] {
    ended = !process_.running();
    return ended || fs::exists(port_file_);
  });
  if (ended) {
    return absl::AbortedError(
        absl::StrCat("fluxd ended before it served:\n", Tail(ReadFile(log_))));
  }
  if (!serves) {
    return absl::DeadlineExceededError(
        absl::StrCat("fluxd does not serve:\n", Tail(ReadFile(log_))));
  }
  return absl::OkStatus();
}

absl::Status Fluxd::Start(const Flags& more,
                          const std::map<std::string, std::string>& environment) {
  if (absl::Status status = Launch(more, environment); !status.ok()) return status;
  return AwaitServing();
}

// ---- ledger
// ------------------------------------------------------------------------------------------------------

std::string LedgerLine::run() const {
  const std::vector<std::string> parts = absl::StrSplit(token, '.');
  return parts.size() == 6 ? parts[1] : "";
}

uint64_t LedgerLine::delivery() const {
  const std::vector<std::string> parts = absl::StrSplit(token, '.');
  uint64_t number = 0;
  if (parts.size() != 6 || !absl::SimpleAtoi(parts[5], &number)) return 0;
  return number;
}

Ledger::Ledger(const TempDir& directory)
    : path_(directory / "ledger"), gates_(directory / "gates") {
  fs::create_directory(gates_);
}

void Ledger::OpenGate(const std::string& name) const { WriteFile(gates_ + "/" + name, ""); }

std::vector<LedgerLine> Ledger::Read() const {
  const std::string text = ReadFile(path_);
  std::vector<LedgerLine> lines;
  for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    const std::vector<std::string> fields = absl::StrSplit(text.substr(begin, end - begin), '\t');
    if (fields.size() != 8) {
      ADD_FAILURE() << "not a ledger line: " << text.substr(begin, end - begin);
      continue;
    }
    LedgerLine line{fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], 0, fields[7]};
    if (!absl::SimpleAtoi(fields[6], &line.attempt)) ADD_FAILURE() << "no attempt: " << fields[6];
    lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<LedgerLine> Ledger::Find(const Filter& filter) const {
  const auto fits = [](const std::string& wanted, const std::string& found) {
    return wanted.empty() || wanted == found;
  };
  std::vector<LedgerLine> found;
  for (LedgerLine& line : Read()) {
    if (fits(filter.event, line.event) && fits(filter.task, line.task) &&
        fits(filter.workflow_id, line.workflow_id) && fits(filter.worker, line.worker)) {
      found.push_back(std::move(line));
    }
  }
  return found;
}

std::vector<LedgerLine> Ledger::Await(const Filter& filter, size_t count) const {
  std::vector<LedgerLine> found;
  EXPECT_TRUE(Eventually([&] {
    found = Find(filter);
    return found.size() >= count;
  })) << "the ledger has "
      << found.size() << " of " << count << " lines: " << filter.event << " " << filter.task << " "
      << filter.workflow_id << " " << filter.worker;
  return found;
}

absl::StatusOr<WorkerProcess> WorkerProcess::Start(const TempDir& directory, const Ledger& ledger,
                                                   const std::string& target,
                                                   const WorkerFlags& flags) {
  WorkerProcess worker;
  worker.id_ = flags.id;
  absl::StatusOr<Process> process = Process::Start(
      {FLUX_E2E_WORKER,
       {"--target", target, "--ledger", ledger.path(), "--gates", ledger.gates(), "--id", flags.id,
        "--queue", flags.queue, "--slots", absl::StrCat(flags.slots), "--prefetch",
        absl::StrCat(flags.prefetch), "--dawdle-ms", absl::StrCat(flags.dawdle_ms)},
       {},
       "",
       directory / "workers.log"});
  if (!process.ok()) return process.status();
  worker.process_ = *std::move(process);
  return worker;
}

// ---- fixture
// -----------------------------------------------------------------------------------------------------

EndToEnd::EndToEnd() { SetFlags({}); }

void EndToEnd::SetFlags(Flags flags) {
  flags.insert(
      {{"session-grace", "500ms"}, {"ping-interval", "200ms"}, {"idle-before-eviction", "50ms"}});
  fluxd_.set_flags(std::move(flags));
}

void EndToEnd::TearDown() {
  // A suspended process takes no SIGTERM; none is needed, everything is thrown away.
  workers_.clear();
  fluxd_.Kill();
  if (!HasFailure()) return;
  std::cerr << "---- fluxd's log\n"
            << Tail(fluxd_.log()) << "---- the workers' logs\n"
            << Tail(ReadFile(directory_ / "workers.log")) << "---- the ledger\n"
            << Tail(ReadFile(ledger_.path()));
}

void EndToEnd::StartFluxd(const Flags& more,
                          const std::map<std::string, std::string>& environment) {
  const absl::Status status = fluxd_.Start(more, environment);
  ASSERT_TRUE(status.ok()) << status;
}

WorkerProcess& EndToEnd::StartWorker(WorkerFlags flags) {
  absl::StatusOr<WorkerProcess> started =
      WorkerProcess::Start(directory_, ledger_, fluxd_.target(), flags);
  EXPECT_TRUE(started.ok()) << started.status();
  WorkerProcess& worker = workers_[flags.id];
  if (started.ok()) worker = *std::move(started);
  return worker;
}

WorkerProcess& EndToEnd::worker(const std::string& id) { return workers_.at(id); }

}  // namespace flux::e2e
