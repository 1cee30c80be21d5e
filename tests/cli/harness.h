// The real fluxctl in a process of its own, on pipes or on a terminal, against a coordinator that
// answers what each test tells it to. Fluxctl is the fixture: it owns the coordinator, runs
// commands and keeps what they asked for. A test and the coordinator's threads share what stands in
// the fixture: a test reads it after Run() or Settle(), or holds the service's mutex.
#ifndef FLUX_TESTS_CLI_HARNESS_H_
#define FLUX_TESTS_CLI_HARNESS_H_

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "flux/v1/admin.grpc.pb.h"
#include "flux/v1/bulk.grpc.pb.h"
#include "flux/v1/schedule.grpc.pb.h"
#include "flux/v1/workflow.grpc.pb.h"

namespace flux::cli {

inline constexpr auto kPatience = std::chrono::seconds(60);  // only a hang ever waits for it
inline constexpr char kRunId[] = "0123456789abcdef0123456789abcdef";
inline constexpr char kBulkId[] = "0123456789abcdef";
inline constexpr int64_t kStartMs = 1'714'564'800'000;

inline v1::Payload JsonPayload(const std::string& text) {
  v1::Payload payload;
  payload.set_encoding(v1::ENCODING_JSON);
  payload.set_data(text);
  return payload;
}

inline v1::ExecutionInfo Info(const std::string& id, v1::ExecutionStatus status) {
  v1::ExecutionInfo info;
  info.set_workflow_id(id);
  info.set_run_id(kRunId);
  info.set_workflow("code-chart");
  info.set_status(status);
  info.set_start_time_ms(kStartMs);
  return info;
}

inline v1::WatchExecutionResponse Picture(uint64_t done, v1::ExecutionStatus status) {
  v1::WatchExecutionResponse response;
  *response.mutable_info() = Info("chart-17", status);
  response.set_server_time_ms(kStartMs + 2000);
  response.set_closed(status != v1::EXECUTION_STATUS_RUNNING);
  v1::StepInfo& step = *response.add_steps();
  step.set_name("codes");
  step.set_kind("map");
  step.set_state(response.closed() ? v1::STEP_STATE_COMPLETED : v1::STEP_STATE_WAITING);
  step.set_scheduled_time_ms(kStartMs);
  if (response.closed()) step.set_end_time_ms(kStartMs + 2000);
  step.set_items(100);
  step.set_items_done(done);
  return response;
}

// What a watch stream is to send, handed over by the test one by one.
class Feed {
 public:
  void Send(v1::WatchExecutionResponse response) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(response));
    changed_.notify_all();
  }
  // The next one; none once the call is cancelled.
  std::optional<v1::WatchExecutionResponse> Next(grpc::ServerContext* context) {
    std::unique_lock lock(mutex_);
    while (queue_.empty()) {
      if (context->IsCancelled()) return std::nullopt;
      changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
    v1::WatchExecutionResponse response = std::move(queue_.front());
    queue_.pop_front();
    return response;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::WatchExecutionResponse> queue_;
};

template <typename Request, typename Response>
using Handler = std::function<grpc::Status(const Request&, Response*)>;

#define FLUX_FAKE(Method)                                                                \
  Handler<v1::Method##Request, v1::Method##Response> on_##Method;                        \
  grpc::Status Method(grpc::ServerContext*, const v1::Method##Request* request,          \
                      v1::Method##Response* response) override {                         \
    const std::lock_guard lock(mutex);                                                   \
    if (!on_##Method) return {grpc::StatusCode::UNIMPLEMENTED, #Method " is not faked"}; \
    return on_##Method(*request, response);                                              \
  }

class Workflows : public v1::WorkflowService::Service {
 public:
  FLUX_FAKE(PutDefinition)
  FLUX_FAKE(GetDefinition)
  FLUX_FAKE(ListDefinitions)
  FLUX_FAKE(StartWorkflow)
  FLUX_FAKE(GetResult)
  FLUX_FAKE(DescribeExecution)
  FLUX_FAKE(GetHistory)
  FLUX_FAKE(ListExecutions)
  FLUX_FAKE(CountExecutions)
  FLUX_FAKE(CancelExecution)
  FLUX_FAKE(TerminateExecution)
  FLUX_FAKE(SendEvent)
  FLUX_FAKE(ListEvents)
  FLUX_FAKE(OperateExecution)

  grpc::Status WatchExecution(grpc::ServerContext* context,
                              const v1::WatchExecutionRequest* request,
                              grpc::ServerWriter<v1::WatchExecutionResponse>* writer) override {
    {
      const std::lock_guard lock(mutex);
      watched.push_back(request->execution());
      if (!watch_status.ok()) return watch_status;
      ++watching_;
    }
    grpc::Status status = grpc::Status::CANCELLED;
    while (auto response = feed.Next(context)) {
      writer->Write(*response);
      if (!response->closed()) continue;
      status = grpc::Status::OK;
      break;
    }
    const std::lock_guard lock(mutex);
    --watching_;
    idle_.notify_all();
    return status;
  }

  // Until no watcher is left that could take what the next one is to see.
  void AwaitNobodyWatches() {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(idle_.wait_for(lock, kPatience, [this] { return watching_ == 0; }));
  }

  std::mutex mutex;
  Feed feed;
  grpc::Status watch_status;
  std::vector<v1::ExecutionRef> watched;

 private:
  int watching_ = 0;
  std::condition_variable idle_;
};

class Bulks : public v1::BulkService::Service {
 public:
  FLUX_FAKE(StartBulkOperation)
  FLUX_FAKE(GetBulkOperation)
  FLUX_FAKE(ListBulkOperations)
  FLUX_FAKE(CancelBulkOperation)

  std::mutex mutex;
};

class Schedules : public v1::ScheduleService::Service {
 public:
  FLUX_FAKE(CreateSchedule)
  FLUX_FAKE(UpdateSchedule)
  FLUX_FAKE(GetSchedule)
  FLUX_FAKE(ListSchedules)
  FLUX_FAKE(BackfillSchedule)

  std::mutex mutex;
};
#undef FLUX_FAKE

class Admin : public v1::AdminService::Service {
 public:
  // What its clock shows, which does not go on; 0: it does not tell.
  std::atomic<int64_t> time_ms{0};
  // How long ago what it shows began.
  static constexpr int64_t kAgeMs = 300'000;

  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    response->set_version("9.9.9");
    (*response->mutable_counters())["commits"] = 7;
    response->set_start_time_ms(time_ms - kAgeMs);
    response->set_server_time_ms(time_ms);
    return grpc::Status::OK;
  }
  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest* request,
                           v1::ListWorkersResponse* response) override {
    if (request->queue() == "empty") return grpc::Status::OK;
    v1::WorkerInfo& worker = *response->add_workers();
    worker.set_worker_id("host:12\x1b[31m");
    worker.set_queue("default");
    worker.set_slots(4);
    worker.set_connected_time_ms(time_ms - kAgeMs);
    response->set_server_time_ms(time_ms);
    return grpc::Status::OK;
  }
  grpc::Status ListTaskQueues(grpc::ServerContext*, const v1::ListTaskQueuesRequest*,
                              v1::ListTaskQueuesResponse* response) override {
    v1::TaskQueueInfo& queue = *response->add_queues();
    queue.set_name("default");
    queue.set_oldest_ready_time_ms(time_ms - kAgeMs);
    response->set_server_time_ms(time_ms);
    return grpc::Status::OK;
  }
  grpc::Status GetTaskQueue(grpc::ServerContext*, const v1::GetTaskQueueRequest* request,
                            v1::GetTaskQueueResponse* response) override {
    response->mutable_queue()->set_name(request->name());
    response->mutable_queue()->set_ready(3);
    response->mutable_queue()->set_oldest_ready_time_ms(time_ms - kAgeMs);
    response->set_server_time_ms(time_ms);
    response->mutable_queue()->add_tasks()->set_name("charts.code");
    return grpc::Status::OK;
  }
  grpc::Status VerifyExecution(grpc::ServerContext*, const v1::VerifyExecutionRequest* request,
                               v1::VerifyExecutionResponse* response) override {
    response->set_equal(request->execution().workflow_id() != "damaged");
    response->set_difference("step 3 differs");
    response->set_records(12);
    return grpc::Status::OK;
  }
};

// A coordinator that can be stopped and started again on its port.
class Coordinator {
 public:
  Coordinator() { Start(); }
  ~Coordinator() { Stop(); }
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  void Start() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port_),
                             grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&workflows);
    builder.RegisterService(&admin);
    builder.RegisterService(&bulks);
    builder.RegisterService(&schedules);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    port_ = port;
  }
  void Stop() {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  Workflows workflows;
  Admin admin;
  Bulks bulks;
  Schedules schedules;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

inline std::vector<std::string> Environment(const std::string& address) {
  const char* path = std::getenv("PATH");
  std::vector<std::string> environment = {
      std::string("PATH=") + (path == nullptr ? "/usr/bin:/bin" : path), "LANG=C.UTF-8",
      "TERM=xterm", "USER=tester", "FLUX_ADDRESS=" + address};
  // What a sanitizer is told holds for the programs that a test runs, too.
  for (const char* name : {"TSAN_OPTIONS", "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name); value != nullptr) {
      environment.push_back(std::string(name) + "=" + value);
    }
  }
  return environment;
}

inline std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

// A running process, its three streams pipes.
class Process {
 public:
  Process(std::vector<std::string> command, std::vector<std::string> environment,
          const std::string& input = "") {
    std::array<int, 2> in{}, out{}, err{};
    EXPECT_EQ(
        pipe2(in.data(), O_CLOEXEC) + pipe2(out.data(), O_CLOEXEC) + pipe2(err.data(), O_CLOEXEC),
        0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    EXPECT_EQ(posix_spawnp(&pid_, command[0].c_str(), &actions, nullptr, Pointers(command).data(),
                           Pointers(environment).data()),
              0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    EXPECT_EQ(write(in[1], input.data(), input.size()), static_cast<ssize_t>(input.size()));
    close(in[1]);
    fds_ = {out[0], err[0]};
  }
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    for (const int fd : fds_) {
      if (fd >= 0) close(fd);
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Reads until stream `i` (0: stdout, 1: stderr) holds `text`, or ends.
  bool Await(int i, const std::string& text) {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (text_[i].find(text) == std::string::npos) {
      if (std::chrono::steady_clock::now() > limit || !Pump())
        return text_[i].find(text) != std::string::npos;
    }
    return true;
  }

  Outcome Finish() {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (Pump()) {
      if (std::chrono::steady_clock::now() > limit) {
        ADD_FAILURE() << "the process does not end; stdout so far: " << text_[0]
                      << "\nstderr: " << text_[1];
        kill(pid_, SIGKILL);
      }
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), text_[0], text_[1]};
  }

 private:
  // False once both streams have ended.
  bool Pump() {
    std::array<pollfd, 2> polls{};
    for (int i = 0; i < 2; ++i) polls[i] = {.fd = fds_[i], .events = POLLIN, .revents = 0};
    if (fds_[0] < 0 && fds_[1] < 0) return false;
    poll(polls.data(), polls.size(), 1000);
    for (int i = 0; i < 2; ++i) {
      if (fds_[i] < 0 || polls[i].revents == 0) continue;
      std::array<char, 4096> buffer;
      const ssize_t n = read(fds_[i], buffer.data(), buffer.size());
      if (n <= 0) {
        close(fds_[i]);
        fds_[i] = -1;
      } else {
        text_[i].append(buffer.data(), static_cast<std::size_t>(n));
      }
    }
    return true;
  }

  pid_t pid_ = -1;
  std::array<int, 2> fds_{-1, -1};
  std::array<std::string, 2> text_;
};

// As much of a terminal as a person's eyes: what is on the screen after the bytes so far.
class Screen {
 public:
  explicit Screen(std::size_t columns) : columns_(columns) {}

  void Feed(const std::string& bytes) {
    for (const char c : bytes) {
      pending_.push_back(c);
      Step();
    }
  }
  std::string Text() const {
    std::string text;
    for (const auto& row : rows_) {
      std::string line;
      for (const std::string& cell : row) line += cell.empty() ? " " : cell;
      while (!line.empty() && line.back() == ' ') line.pop_back();
      text += line + "\n";
    }
    return text;
  }
  bool cursor_shown() const { return cursor_shown_; }

 private:
  void Step() {
    const std::string p = pending_;
    if (p[0] == '\x1b') {
      if (p.size() < 3 || (p.back() < '@' || p.back() > '~')) return;
      Control(p);
    } else if (p[0] == '\r') {
      column_ = 0;
    } else if (p[0] == '\n') {
      ++row_;
    } else {
      const auto lead = static_cast<unsigned char>(p[0]);
      const std::size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      if (p.size() < length) return;
      if (column_ >= columns_) {  // autowrap
        column_ = 0;
        ++row_;
      }
      At(row_, column_) = p;
      ++column_;
    }
    pending_.clear();
  }
  void Control(const std::string& p) {
    const int n = p.size() > 3 ? std::atoi(p.c_str() + 2) : 1;
    if (p == "\x1b[?25l") cursor_shown_ = false;
    if (p == "\x1b[?25h") cursor_shown_ = true;
    if (p.back() == 'A') row_ -= std::min<std::size_t>(row_, static_cast<std::size_t>(n));
    if (p.back() == 'K') Row(row_).resize(std::min(Row(row_).size(), column_));
    if (p.back() == 'J') {
      Row(row_).resize(std::min(Row(row_).size(), column_));
      rows_.resize(row_ + 1);
    }
  }
  std::vector<std::string>& Row(std::size_t row) {
    if (rows_.size() <= row) rows_.resize(row + 1);
    return rows_[row];
  }
  std::string& At(std::size_t row, std::size_t column) {
    auto& cells = Row(row);
    if (cells.size() <= column) cells.resize(column + 1);
    return cells[column];
  }

  const std::size_t columns_;
  std::string pending_;
  std::vector<std::vector<std::string>> rows_;
  std::size_t row_ = 0;
  std::size_t column_ = 0;
  bool cursor_shown_ = true;
};

// A process on a terminal of its own.
class Terminal {
 public:
  Terminal(std::vector<std::string> command, std::vector<std::string> environment,
           unsigned short columns)
      : screen_(columns) {
    winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    const std::vector<char*> argv = Pointers(command);
    const std::vector<char*> envp = Pointers(environment);
    pid_ = forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ == 0) {
      execve(argv[0], argv.data(), envp.data());
      _exit(127);
    }
    EXPECT_GT(pid_, 0);
  }
  ~Terminal() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(fd_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool AwaitScreen(const std::string& text) {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (screen_.Text().find(text) == std::string::npos) {
      if (std::chrono::steady_clock::now() > limit || !Pump())
        return screen_.Text().find(text) != std::string::npos;
    }
    return true;
  }
  void Type(const std::string& text) {
    EXPECT_EQ(write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void Interrupt() { kill(pid_, SIGINT); }
  int Finish() {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (Pump()) {
      if (std::chrono::steady_clock::now() > limit) {
        ADD_FAILURE() << "the process does not end; on the screen: " << screen_.Text();
        kill(pid_, SIGKILL);
      }
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  const Screen& screen() const { return screen_; }
  const std::string& bytes() const { return bytes_; }

 private:
  bool Pump() {
    pollfd p{.fd = fd_, .events = POLLIN, .revents = 0};
    if (poll(&p, 1, 1000) == 0) return true;
    std::array<char, 4096> buffer;
    const ssize_t n = read(fd_, buffer.data(), buffer.size());
    if (n <= 0) return false;  // EIO: the other side is closed
    const std::string text(buffer.data(), static_cast<std::size_t>(n));
    bytes_ += text;
    screen_.Feed(text);
    return true;
  }

  pid_t pid_ = -1;
  int fd_ = -1;
  Screen screen_;
  std::string bytes_;
};

// The path of the program under test.
std::string FluxctlBinary();

class Fluxctl : public testing::Test {
 protected:
  std::vector<std::string> Command(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), FluxctlBinary());
    Settle();
    return arguments;
  }
  // What the server's threads and this one wrote is seen by the other: a process in between orders
  // nothing that a race detector knows of.
  void Settle() { const std::scoped_lock lock(workflows.mutex, bulks.mutex, schedules.mutex); }
  void TearDown() override { Settle(); }
  Outcome Run(std::vector<std::string> arguments, const std::string& input = "") {
    Outcome outcome =
        Process(Command(std::move(arguments)), Environment(coordinator.address()), input).Finish();
    Settle();
    return outcome;
  }

  // A start that is accepted, and a result.
  void AcceptStarts(v1::ExecutionStatus status, const std::string& result) {
    workflows.on_StartWorkflow = [this](const v1::StartWorkflowRequest& request,
                                        v1::StartWorkflowResponse* response) {
      starts.push_back(request);
      response->set_workflow_id(request.workflow_id().empty() ? "made-up" : request.workflow_id());
      response->set_run_id(kRunId);
      response->set_started(true);
      return grpc::Status::OK;
    };
    workflows.on_GetResult = [status, result](const v1::GetResultRequest&,
                                              v1::GetResultResponse* response) {
      response->set_status(status);
      response->set_run_id(kRunId);
      if (status == v1::EXECUTION_STATUS_COMPLETED)
        *response->mutable_result() = JsonPayload(result);
      if (status == v1::EXECUTION_STATUS_FAILED) {
        response->mutable_failure()->set_type("rejected");
        response->mutable_failure()->set_message("the reviewer said no");
      }
      return grpc::Status::OK;
    };
  }
  // `count` executions run-0, run-1, … in pages as asked for.
  void List(uint64_t count) {
    workflows.on_ListExecutions = [this, count](const v1::ListExecutionsRequest& request,
                                                v1::ListExecutionsResponse* response) {
      lists.push_back(request);
      uint64_t at = request.page_token().empty() ? 0 : std::stoull(request.page_token());
      for (uint64_t n = 0; n < request.page_size() && at < count; ++n, ++at) {
        *response->add_executions() =
            Info("run-" + std::to_string(at), v1::EXECUTION_STATUS_RUNNING);
      }
      if (at < count) response->set_next_page_token(std::to_string(at));
      return grpc::Status::OK;
    };
  }
  void AcceptCancels() {
    workflows.on_CancelExecution = [this](const v1::CancelExecutionRequest& request,
                                          v1::CancelExecutionResponse*) {
      cancels.push_back(request);
      if (request.execution().workflow_id() == "run-1") {
        return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "run-1 is completed already");
      }
      return grpc::Status::OK;
    };
  }

  // Every operation is done, but for those on run-1.
  void AcceptOperations() {
    workflows.on_OperateExecution = [this](const v1::OperateExecutionRequest& request,
                                           v1::OperateExecutionResponse* response) {
      operations.push_back(request);
      if (request.execution().workflow_id() == "run-1") {
        return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "run-1 is completed already");
      }
      response->set_run_id(kRunId);
      if (request.operation().has_retry()) response->set_detail("3 steps are tried again");
      return grpc::Status::OK;
    };
  }
  // Bulk operations that match `count` executions run-0, run-1, … Asked for its state, an operation
  // deals with a third of them more; run-1 refuses, and run-2 fails if `fails`.
  void AcceptBulks(uint64_t count, bool fails = false) {
    bulks.on_StartBulkOperation = [this, count](const v1::StartBulkOperationRequest& request,
                                                v1::StartBulkOperationResponse* response) {
      bulk_starts.push_back(request);
      response->set_matched(count);
      if (request.preview()) {
        for (uint64_t i = 0; i < std::min<uint64_t>(count, request.preview_rows()); ++i) {
          *response->add_first() = Info("run-" + std::to_string(i), v1::EXECUTION_STATUS_RUNNING);
        }
        return grpc::Status::OK;
      }
      bulk.Clear();
      bulk.set_id(kBulkId);
      *bulk.mutable_filter() = request.filter();
      *bulk.mutable_operation() = request.operation();
      bulk.set_rate_per_second(request.rate_per_second());
      bulk.set_identity(request.identity());
      bulk.set_reason(request.reason());
      bulk.set_state(v1::BULK_STATE_RUNNING);
      bulk.set_start_time_ms(kStartMs);
      bulk.set_matched(count);
      *response->mutable_operation() = bulk;
      return grpc::Status::OK;
    };
    bulks.on_GetBulkOperation = [this, count, fails](const v1::GetBulkOperationRequest& request,
                                                     v1::GetBulkOperationResponse* response) {
      if (request.id() != kBulkId) {
        return grpc::Status(grpc::StatusCode::NOT_FOUND,
                            "no bulk operation \"" + request.id() + "\"");
      }
      ++bulk_polls;
      const uint64_t dealt =
          std::min(count, bulk.done() + bulk.refused() + bulk.failed() + (count + 2) / 3);
      const auto refuse = [this](const char* id, const char* message) {
        v1::BulkError& error = *bulk.add_errors();
        error.set_workflow_id(id);
        error.set_run_id(kRunId);
        error.set_message(message);
      };
      if (count > 1 && bulk.refused() == 0) {
        bulk.set_refused(1);
        refuse("run-1", "run-1 is completed already");
        if (fails) {
          bulk.set_failed(1);
          refuse("run-2", "the disk is full");
        }
      }
      bulk.set_done(dealt - bulk.refused() - bulk.failed());
      if (dealt == count && !bulk_hangs) {
        bulk.set_state(v1::BULK_STATE_COMPLETED);
        bulk.set_end_time_ms(kStartMs + 1500);
      }
      *response->mutable_operation() = bulk;
      return grpc::Status::OK;
    };
    bulks.on_CancelBulkOperation = [this](const v1::CancelBulkOperationRequest& request,
                                          v1::CancelBulkOperationResponse* response) {
      if (request.id() != kBulkId) {
        return grpc::Status(grpc::StatusCode::NOT_FOUND,
                            "no bulk operation \"" + request.id() + "\"");
      }
      if (bulk.state() != v1::BULK_STATE_RUNNING) {
        return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "it has ended already");
      }
      bulk.set_state(v1::BULK_STATE_CANCELLED);
      bulk.set_failure("cancelled by " + request.identity());
      bulk.set_end_time_ms(kStartMs + 500);
      *response->mutable_operation() = bulk;
      return grpc::Status::OK;
    };
    bulks.on_ListBulkOperations = [this](const v1::ListBulkOperationsRequest&,
                                         v1::ListBulkOperationsResponse* response) {
      if (!bulk.id().empty()) *response->add_operations() = bulk;
      return grpc::Status::OK;
    };
  }
  // Two versions of a definition, and a hash of each.
  void Define() {
    const auto make = [](const std::string& version) {
      v1::GetDefinitionResponse made;
      v1::Definition& definition = *made.mutable_definition();
      definition.set_name("code-chart");
      definition.set_version(version);
      v1::Step& step = *definition.add_scopes()->add_steps();
      step.set_name("merge");
      step.mutable_task()->set_task("merge");
      step.mutable_task()->mutable_retry()->set_max_attempts(version == "1" ? 3 : 5);
      made.mutable_summary()->set_name("code-chart");
      made.mutable_summary()->set_version(version);
      made.mutable_summary()->set_definition_hash(std::string(30, '\x11') +
                                                  (version == "1" ? "\x01\x11" : "\x02\x11"));
      return made;
    };
    workflows.on_ListDefinitions = [make](const v1::ListDefinitionsRequest&,
                                          v1::ListDefinitionsResponse* response) {
      *response->add_definitions() = make("1").summary();
      *response->add_definitions() = make("2").summary();
      return grpc::Status::OK;
    };
    workflows.on_GetDefinition = [make](const v1::GetDefinitionRequest& request,
                                        v1::GetDefinitionResponse* response) {
      for (const char* version : {"2", "1"}) {
        *response = make(version);
        const bool by_hash = !request.definition_hash().empty();
        if (by_hash && request.definition_hash() == response->summary().definition_hash()) {
          return grpc::Status::OK;
        }
        if (!by_hash && request.name() == "code-chart" &&
            (request.version().empty() || request.version() == version)) {
          return grpc::Status::OK;
        }
      }
      return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such definition");
    };
  }

  Coordinator coordinator;
  Workflows& workflows = coordinator.workflows;
  Admin& admin = coordinator.admin;
  Bulks& bulks = coordinator.bulks;
  Schedules& schedules = coordinator.schedules;
  std::vector<v1::StartBulkOperationRequest> bulk_starts;
  v1::BulkOperation bulk;  // the last one
  int bulk_polls = 0;
  bool bulk_hangs = false;  // never comes to its end
  std::vector<v1::OperateExecutionRequest> operations;
  std::vector<v1::StartWorkflowRequest> starts;
  std::vector<v1::ListExecutionsRequest> lists;
  std::vector<v1::CancelExecutionRequest> cancels;
};

}  // namespace flux::cli

#endif  // FLUX_TESTS_CLI_HARNESS_H_
