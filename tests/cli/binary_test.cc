// The real binary, in a process of its own, against a coordinator that answers what each test tells
// it to.
#include <fcntl.h>
#include <gmock/gmock.h>
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
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "flux/v1/admin.grpc.pb.h"
#include "flux/v1/bulk.grpc.pb.h"
#include "flux/v1/workflow.grpc.pb.h"

namespace flux {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using Json = nlohmann::json;

constexpr auto kPatience = std::chrono::seconds(60);  // only a hang ever waits for it
constexpr char kRunId[] = "0123456789abcdef0123456789abcdef";
constexpr char kBulkId[] = "0123456789abcdef";
constexpr int64_t kStartMs = 1'714'564'800'000;

v1::Payload JsonPayload(const std::string& text) {
  v1::Payload payload;
  payload.set_encoding(v1::ENCODING_JSON);
  payload.set_data(text);
  return payload;
}

v1::ExecutionInfo Info(const std::string& id, v1::ExecutionStatus status) {
  v1::ExecutionInfo info;
  info.set_workflow_id(id);
  info.set_run_id(kRunId);
  info.set_workflow("code-chart");
  info.set_status(status);
  info.set_start_time_ms(kStartMs);
  return info;
}

v1::WatchExecutionResponse Picture(uint64_t done, v1::ExecutionStatus status) {
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
#undef FLUX_FAKE

class Admin : public v1::AdminService::Service {
 public:
  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    response->set_version("9.9.9");
    (*response->mutable_counters())["commits"] = 7;
    return grpc::Status::OK;
  }
  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest* request,
                           v1::ListWorkersResponse* response) override {
    if (request->queue() == "empty") return grpc::Status::OK;
    v1::WorkerInfo& worker = *response->add_workers();
    worker.set_worker_id("host:12\x1b[31m");
    worker.set_queue("default");
    worker.set_slots(4);
    return grpc::Status::OK;
  }
  grpc::Status ListTaskQueues(grpc::ServerContext*, const v1::ListTaskQueuesRequest*,
                              v1::ListTaskQueuesResponse* response) override {
    response->add_queues()->set_name("default");
    return grpc::Status::OK;
  }
  grpc::Status GetTaskQueue(grpc::ServerContext*, const v1::GetTaskQueueRequest* request,
                            v1::GetTaskQueueResponse* response) override {
    response->mutable_queue()->set_name(request->name());
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

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

std::vector<std::string> Environment(const std::string& address) {
  const char* path = std::getenv("PATH");
  return {std::string("PATH=") + (path == nullptr ? "/usr/bin:/bin" : path), "LANG=C.UTF-8",
          "TERM=xterm", "USER=tester", "FLUX_ADDRESS=" + address};
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
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

class Fluxctl : public testing::Test {
 protected:
  std::vector<std::string> Command(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), FLUXCTL_BINARY);
    Settle();
    return arguments;
  }
  // What the server's threads and this one wrote is seen by the other: a process in between orders
  // nothing that a race detector knows of.
  void Settle() { const std::scoped_lock lock(workflows.mutex, bulks.mutex); }
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
      made.mutable_summary()->set_definition_hash(std::string(31, '\x11') +
                                                  (version == "1" ? '\x01' : '\x02'));
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
  Bulks& bulks = coordinator.bulks;
  std::vector<v1::StartBulkOperationRequest> bulk_starts;
  v1::BulkOperation bulk;  // the last one
  int bulk_polls = 0;
  bool bulk_hangs = false;  // never comes to its end
  std::vector<v1::OperateExecutionRequest> operations;
  std::vector<v1::StartWorkflowRequest> starts;
  std::vector<v1::ListExecutionsRequest> lists;
  std::vector<v1::CancelExecutionRequest> cancels;
};

TEST_F(Fluxctl, BareAndGroupsPrintHelp) {
  const Outcome bare = Run({});
  EXPECT_EQ(bare.code, 0);
  EXPECT_THAT(bare.out, HasSubstr("Exit codes:"));
  EXPECT_THAT(bare.err, IsEmpty());
  const Outcome group = Run({"workflow"});
  EXPECT_EQ(group.code, 0);
  EXPECT_THAT(group.out, HasSubstr("fluxctl workflow"));
  EXPECT_THAT(group.out, HasSubstr("terminate"));
  const Outcome help = Run({"workflow", "start", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("Usage: fluxctl workflow start"));
  EXPECT_THAT(Run({"--version"}).out, StartsWith("fluxctl "));
  EXPECT_THAT(Run({"version", "-o", "jsonl"}).out, StartsWith("{\"version\":"));
}

TEST_F(Fluxctl, UsageErrorsAreTwoAndSayWhatIsWrong) {
  const struct {
    std::vector<std::string> arguments;
    const char* message;
  } kCases[] = {
      {{"frobnicate"}, "unknown command \"frobnicate\" for 'fluxctl'"},
      {{"workflow", "strat", "x"}, "did you mean \"start\"?"},
      {{"workflow", "list", "--stats", "running"}, "did you mean \"--status\"?"},
      {{"workflow", "list", "--status", "runing"}, "did you mean running?"},
      {{"workflow", "list", "--started-after", "noon"}, "--started-after: \"noon\" is not a time"},
      {{"workflow", "show"}, "WORKFLOW_ID is required"},
      {{"workflow", "show", "a", "b"}, "unexpected argument \"b\""},
      {{"workflow", "show", "a", "--items", "many"}, "--items"},
      {{"workflow", "start", "w", "--id="}, "has an empty value"},
      {{"workflow", "start", "w", "--input", "{\"a\": tru}"},
       "--input is not JSON: line 1, column"},
      {{"workflow", "start", "w", "--label", "novalue"}, "is not KEY=VALUE"},
      {{"workflow", "start", "w", "--label", "k=1", "--label", "k=2"}, "given twice"},
      {{"workflow", "start", "w", "--args", "[1]", "--input", "1"}, "cannot be combined"},
      {{"workflow", "start", "w", "--args", "{}"}, "must be a JSON array"},
      {{"workflow", "start", "w", "--input", "-", "--input", "-"}, "only one of the parameters"},
      {{"workflow", "start", "w", "--on-conflict", "maybe"}, "not one of reject, use-existing"},
      {{"workflow", "cancel"}, "name the workflow ids"},
      {{"workflow", "cancel", "a", "--workflow", "w"}, "not both"},
      {{"workflow", "delete", "a", "--query", "steps > 3"}, "not both"},
      {{"workflow", "cancel", "--query", "started <= now", "--run-id", "x"}, "exactly one"},
      {{"workflow", "cancel", "--query", " \t"}, "--query is blank"},
      {{"workflow", "list", "--query", ""}, "--query is blank"},
      {{"workflow", "cancel", "--workflow", "w", "--rate", "0"}, "--rate"},
      {{"workflow", "cancel", "--workflow", "w", "--rate", "10001"}, "--rate"},
      {{"workflow", "cancel", "--workflow", "w", "--rate", "-1"}, "--rate"},
      {{"workflow", "cancel", "--workflow", "w", "--rate", "fast"}, "--rate"},
      {{"workflow", "cancel", "a", "--rate", "5"}, "--rate goes with filters"},
      {{"workflow", "pause", "a", "--detach"}, "--detach goes with filters"},
      {{"workflow", "skip"}, "WORKFLOW_ID and STEP are required"},
      {{"workflow", "skip", "a"}, "STEP is required"},
      {{"workflow", "skip", "--workflow", "w"}, "STEP is required"},
      {{"workflow", "skip", "a", "merge", "--workflow", "w"}, "not both"},
      {{"workflow", "park", "a", "merge", "--detach"}, "--detach goes with filters"},
      {{"workflow", "set-result", "--workflow", "w", "merge"}, "give the value with --input"},
      {{"bulk", "show"}, "BULK_ID is required"},
      {{"bulk", "stop", "x"}, "unknown command \"stop\""},
      {{"workflow", "cancel", "a", "b", "--run-id", "x"}, "exactly one workflow id"},
      {{"workflow", "cancel", "[a]"}, "square brackets"},
      {{"-o", "yaml", "workflow", "list"}, "not one of table, json, jsonl"},
      {{"--timeout", "soon", "workflow", "list"}, "--timeout: \"soon\" is not a duration"},
      {{"--address", "http://x", "workflow", "list"}, "is a URL"},
      {{"definition", "show", "x", "--hash", "abc"}, "is not 64 hex digits"},
      {{"completion", "tcsh"}, "not one of bash, zsh, fish"},
  };
  for (const auto& c : kCases) {
    const Outcome outcome = Run(c.arguments, "1");
    EXPECT_EQ(outcome.code, 2) << c.message << "\n" << outcome.err;
    EXPECT_THAT(outcome.err, StartsWith("fluxctl: ")) << c.message;
    EXPECT_THAT(outcome.err, HasSubstr(c.message));
    EXPECT_THAT(outcome.out, IsEmpty()) << c.message;
  }
  EXPECT_THAT(starts, IsEmpty());
}

TEST_F(Fluxctl, StatusesBecomeExitCodes) {
  const struct {
    grpc::StatusCode status;
    int code;
    const char* word;
  } kCases[] = {
      {grpc::StatusCode::INVALID_ARGUMENT, 2, "(invalid_argument)"},
      {grpc::StatusCode::NOT_FOUND, 3, "(not_found)"},
      {grpc::StatusCode::ALREADY_EXISTS, 4, "(already_exists)"},
      {grpc::StatusCode::FAILED_PRECONDITION, 4, "(failed_precondition)"},
      {grpc::StatusCode::ABORTED, 4, "(aborted)"},
      {grpc::StatusCode::DEADLINE_EXCEEDED, 5, "(deadline_exceeded)"},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, 6, "(resource_exhausted)"},
      {grpc::StatusCode::INTERNAL, 6, "(internal)"},
      {grpc::StatusCode::UNIMPLEMENTED, 6, "(unimplemented)"},
  };
  for (const auto& c : kCases) {
    workflows.on_DescribeExecution = [&](const v1::DescribeExecutionRequest&,
                                         v1::DescribeExecutionResponse*) {
      return grpc::Status(c.status, "the reason \x1b[2J");
    };
    const Outcome outcome = Run({"workflow", "show", "x"});
    EXPECT_EQ(outcome.code, c.code) << c.word;
    EXPECT_THAT(outcome.err, HasSubstr(c.word));
    EXPECT_THAT(outcome.err, Not(HasSubstr("\x1b")));
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST_F(Fluxctl, AnUnreachableAddressIsFiveWithAHint) {
  coordinator.Stop();  // the port is known to be free of listeners
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"workflow", "list"},
                                                                     {"workflow", "watch", "x"},
                                                                     {"workflow", "run", "w"},
                                                                     {"workflow", "result", "x"}}) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 5) << arguments[1];
    EXPECT_THAT(outcome.err, HasSubstr("cannot reach fluxd at " + coordinator.address()));
    EXPECT_THAT(outcome.err, HasSubstr("fluxd --data DIR"));
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST_F(Fluxctl, StartSendsInputsInTheirOrder) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "1");
  const std::string file =
      testing::TempDir() + "fluxctl-input-" + std::to_string(getpid()) + ".json";
  std::ofstream(file) << "\n {\"from\": \"file\"} \n";
  const Outcome outcome = Run({"workflow",
                               "start",
                               "list",
                               "--id",
                               "chart-17",
                               "--input",
                               "[1,2]",
                               "-f",
                               file,
                               "-i",
                               "{}",
                               "-i",
                               "-",
                               "-i",
                               "-5",
                               "--label",
                               "team=billing",
                               "--label",
                               "x=a=b",
                               "--on-conflict",
                               "use-existing",
                               "--reuse",
                               "allow-if-failed",
                               "--version",
                               "2",
                               "--request-id",
                               "r1",
                               "--execution-timeout",
                               "1h",
                               "-n",
                               "prod"},
                              "\"from stdin\"\n");
  std::filesystem::remove(file);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_EQ(outcome.out,
            std::string("WORKFLOW ID  RUN ID                            STARTED\nchart-17     ") +
                kRunId + "  yes\n");
  ASSERT_EQ(starts.size(), 1U);
  const v1::StartWorkflowRequest& request = starts[0];
  EXPECT_EQ(request.workflow(), "list") << "a command's name is a fine workflow name";
  EXPECT_EQ(request.namespace_(), "prod");
  EXPECT_EQ(request.version(), "2");
  EXPECT_EQ(request.request_id(), "r1");
  EXPECT_EQ(request.execution_timeout_ms(), 3'600'000);
  EXPECT_EQ(request.conflict_policy(), v1::CONFLICT_POLICY_USE_EXISTING);
  EXPECT_EQ(request.reuse_policy(), v1::REUSE_POLICY_ALLOW_IF_FAILED);
  EXPECT_EQ(request.labels().at("team"), "billing");
  EXPECT_EQ(request.labels().at("x"), "a=b");
  EXPECT_THAT(request.identity(), StartsWith("fluxctl:tester@"));
  std::vector<std::string> inputs;
  for (const v1::Payload& p : request.inputs()) {
    EXPECT_EQ(p.encoding(), v1::ENCODING_JSON);
    inputs.push_back(p.data());
  }
  EXPECT_THAT(inputs, ElementsAre("[1,2]", "{\"from\": \"file\"}", "{}", "\"from stdin\"", "-5"));
}

TEST_F(Fluxctl, StartTakesAllParametersAsAnArray) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "1");
  const Outcome outcome =
      Run({"workflow", "start", "add", "--args", "[1.50, [2, 3]]", "-o", "json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(starts.size(), 1U);
  ASSERT_EQ(starts[0].inputs_size(), 2);
  EXPECT_EQ(starts[0].inputs(0).data(), "1.50");
  EXPECT_EQ(starts[0].inputs(1).data(), "[2, 3]");
  EXPECT_EQ(starts[0].request_id().size(), 32U) << "made up, so that a repeat is safe";
  const Json json = Json::parse(outcome.out);
  EXPECT_EQ(json["workflow_id"], "made-up");
  EXPECT_EQ(json["started"], true);
}

TEST_F(Fluxctl, AConflictHintsAtTheWayOut) {
  workflows.on_StartWorkflow = [](const v1::StartWorkflowRequest&, v1::StartWorkflowResponse*) {
    return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "workflow id \"a\" is running");
  };
  const Outcome outcome = Run({"workflow", "start", "w", "--id", "a"});
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.err, HasSubstr("fluxctl: workflow id \"a\" is running (already_exists)\n"));
  EXPECT_THAT(outcome.err, HasSubstr("--on-conflict use-existing"));
}

TEST_F(Fluxctl, RunPrintsItsResultOnStdoutAndProgressOnStderr) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "{\"total\": 3.50}");
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  const Outcome outcome =
      Run({"workflow", "run", "code-chart", "--id", "chart-17", "--input", "1"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "{\"total\": 3.50}\n") << "the bytes of the result, nothing else";
  EXPECT_THAT(outcome.err, HasSubstr("fluxctl: started chart-17"));
  EXPECT_THAT(outcome.err, HasSubstr("codes  waiting  10/100 done"));
  EXPECT_THAT(outcome.err, HasSubstr("chart-17  completed"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("\x1b"))) << "no terminal, no control sequences";
  ASSERT_EQ(workflows.watched.size(), 1U);
  EXPECT_EQ(workflows.watched[0].run_id(), kRunId);
}

TEST_F(Fluxctl, AQuietRunIsOnlyItsResult) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "3");
  const Outcome outcome = Run({"workflow", "run", "w", "-q"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, "3\n");
  EXPECT_THAT(outcome.err, IsEmpty());
}

TEST_F(Fluxctl, AFailedRunIsOne) {
  AcceptStarts(v1::EXECUTION_STATUS_FAILED, "");
  const Outcome table = Run({"workflow", "run", "w", "--id", "a", "-q"});
  EXPECT_EQ(table.code, 1);
  EXPECT_THAT(table.out, IsEmpty());
  EXPECT_EQ(table.err, "fluxctl: a failed: rejected: the reviewer said no\n");
  const Outcome json = Run({"workflow", "result", "a", "-o", "json"});
  EXPECT_EQ(json.code, 1);
  const Json document = Json::parse(json.out);
  EXPECT_EQ(document["status"], "failed");
  EXPECT_EQ(document["failure"]["type"], "rejected");
  EXPECT_TRUE(document["result"].is_null());
}

TEST_F(Fluxctl, ResultWaitsUnlessToldNotTo) {
  int asked = 0;
  workflows.on_GetResult = [&](const v1::GetResultRequest& request,
                               v1::GetResultResponse* response) {
    ++asked;
    response->set_run_id(kRunId);
    response->set_status(asked < 3 ? v1::EXECUTION_STATUS_RUNNING : v1::EXECUTION_STATUS_COMPLETED);
    if (asked < 3 && request.wait_ms() == 0) return grpc::Status::OK;
    if (asked >= 3) *response->mutable_result() = JsonPayload("\"late\"");
    return grpc::Status::OK;
  };
  const Outcome waited = Run({"workflow", "result", "a"});
  EXPECT_EQ(waited.code, 0);
  EXPECT_EQ(waited.out, "\"late\"\n");
  EXPECT_EQ(asked, 3);
  asked = 0;
  const Outcome at_once = Run({"workflow", "result", "a", "--no-wait"});
  EXPECT_EQ(at_once.code, 4);
  EXPECT_THAT(at_once.err, HasSubstr("is running and has no result yet"));
  EXPECT_EQ(asked, 1);
}

TEST_F(Fluxctl, ResultEndsAtItsTimeout) {
  workflows.on_GetResult = [](const v1::GetResultRequest& request,
                              v1::GetResultResponse* response) {
    EXPECT_LE(request.wait_ms(), 2000U);
    response->set_status(v1::EXECUTION_STATUS_RUNNING);
    return grpc::Status::OK;
  };
  const Outcome outcome = Run({"workflow", "result", "a", "--timeout", "2s"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, HasSubstr("at the end of --timeout (deadline_exceeded)"));
}

TEST_F(Fluxctl, ResultOutlivesARestartOfTheCoordinator) {
  std::promise<void> asked;
  bool first = true;
  workflows.on_GetResult = [&](const v1::GetResultRequest&, v1::GetResultResponse* response) {
    response->set_run_id(kRunId);
    response->set_status(first ? v1::EXECUTION_STATUS_RUNNING : v1::EXECUTION_STATUS_COMPLETED);
    *response->mutable_result() = JsonPayload("7");
    if (std::exchange(first, false)) asked.set_value();
    return grpc::Status::OK;
  };
  Process process(Command({"workflow", "result", "a"}), Environment(coordinator.address()));
  ASSERT_EQ(asked.get_future().wait_for(kPatience), std::future_status::ready);
  coordinator.Stop();
  coordinator.Start();
  const Outcome outcome = process.Finish();
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "7\n");
}

TEST_F(Fluxctl, WatchPrintsALineAChangeOffATerminal) {
  workflows.feed.Send(Picture(0, v1::EXECUTION_STATUS_RUNNING));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  const Outcome outcome = Run({"workflow", "watch", "chart-17"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "2024-05-01T12:00:02.000Z  chart-17  running\n"
            "2024-05-01T12:00:02.000Z  codes  waiting  0/100 done\n"
            "2024-05-01T12:00:02.000Z  codes  completed  100/100 done  2.0s\n"
            "2024-05-01T12:00:02.000Z  chart-17  completed\n");
  EXPECT_THAT(outcome.err, IsEmpty());
}

TEST_F(Fluxctl, WatchGivesObjectsOrOneDocument) {
  workflows.feed.Send(Picture(0, v1::EXECUTION_STATUS_RUNNING));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_FAILED));
  const Outcome lines = Run({"workflow", "watch", "chart-17", "-o", "jsonl"});
  EXPECT_EQ(lines.code, 1);
  std::istringstream stream(lines.out);
  std::vector<std::string> statuses;
  for (std::string line; std::getline(stream, line);)
    statuses.push_back(Json::parse(line)["info"]["status"]);
  EXPECT_THAT(statuses, ElementsAre("running", "failed"));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  const Outcome document = Run({"workflow", "watch", "chart-17", "-o", "json"});
  EXPECT_EQ(document.code, 0);
  EXPECT_EQ(Json::parse(document.out)["closed"], true);
}

TEST_F(Fluxctl, WatchSurvivesARestartOfTheCoordinator) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Process process(Command({"workflow", "watch", "chart-17"}), Environment(coordinator.address()));
  ASSERT_TRUE(process.Await(0, "10/100 done"));
  coordinator.Stop();
  ASSERT_TRUE(process.Await(1, "fluxctl: lost the connection to " + coordinator.address()));
  coordinator.Start();
  workflows.feed.Send(Picture(50, v1::EXECUTION_STATUS_RUNNING));
  ASSERT_TRUE(process.Await(0, "50/100 done"));
  EXPECT_TRUE(process.Await(1, "fluxctl: connected to " + coordinator.address() + " again"));
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  const Outcome outcome = process.Finish();
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, Not(HasSubstr("fluxctl:"))) << "notes are on stderr only";
  const std::lock_guard lock(workflows.mutex);
  EXPECT_EQ(workflows.watched.front().run_id(), "");
  EXPECT_EQ(workflows.watched.back().run_id(), kRunId)
      << "the run that was watched, not a later one";
}

TEST_F(Fluxctl, WatchEndsAtItsTimeout) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  const Outcome running = Run({"workflow", "watch", "chart-17", "--timeout", "3s"});
  EXPECT_EQ(running.code, 5);
  EXPECT_THAT(running.err,
              HasSubstr("chart-17 is still running at the end of --timeout (deadline_exceeded)"));

  workflows.AwaitNobodyWatches();
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Process process(Command({"workflow", "watch", "chart-17", "--timeout", "3s"}),
                  Environment(coordinator.address()));
  ASSERT_TRUE(process.Await(0, "10/100 done"));
  coordinator.Stop();
  const Outcome gone = process.Finish();
  EXPECT_EQ(gone.code, 5);
  EXPECT_THAT(gone.err, HasSubstr("fluxd is not to be reached"));
}

TEST_F(Fluxctl, WatchOfNothingIsThree) {
  workflows.watch_status =
      grpc::Status(grpc::StatusCode::NOT_FOUND, "no execution of workflow id \"x\"");
  const Outcome outcome = Run({"workflow", "watch", "x"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_EQ(outcome.err, "fluxctl: no execution of workflow id \"x\" (not_found)\n");
}

TEST_F(Fluxctl, ListPagesThroughToItsLimit) {
  List(1234);
  const Outcome limited = Run({"workflow", "list", "--limit", "600", "-o", "jsonl", "--status",
                               "running,failed", "--status", "paused", "--workflow", "w",
                               "--id-prefix", "run-", "--started-after", "2024-05-01"});
  EXPECT_EQ(limited.code, 0);
  EXPECT_EQ(std::count(limited.out.begin(), limited.out.end(), '\n'), 600);
  EXPECT_THAT(limited.err, HasSubstr("there are more than these 600"));
  ASSERT_EQ(lists.size(), 2U);
  EXPECT_EQ(lists[1].page_size(), 100U);
  const v1::ExecutionFilter& filter = lists[0].filter();
  EXPECT_EQ(filter.workflow(), "w");
  EXPECT_EQ(filter.workflow_id_prefix(), "run-");
  EXPECT_EQ(filter.started_after_ms(), kStartMs - 12 * 3'600'000);
  EXPECT_THAT(filter.statuses(),
              ElementsAre(v1::EXECUTION_STATUS_RUNNING, v1::EXECUTION_STATUS_FAILED,
                          v1::EXECUTION_STATUS_PAUSED));

  const Outcome all = Run({"workflow", "list", "--limit", "0", "-o", "json"});
  EXPECT_EQ(Json::parse(all.out)["executions"].size(), 1234U);
  EXPECT_THAT(all.err, IsEmpty());
  const Outcome table = Run({"workflow", "list"});
  EXPECT_THAT(table.out, StartsWith("WORKFLOW ID  WORKFLOW"));
  EXPECT_EQ(std::count(table.out.begin(), table.out.end(), '\n'), 101);
}

TEST_F(Fluxctl, AnEmptyListIsANoteAndAnEmptyDocument) {
  List(0);
  const Outcome table = Run({"workflow", "list"});
  EXPECT_EQ(table.code, 0);
  EXPECT_THAT(table.out, IsEmpty());
  EXPECT_EQ(table.err, "fluxctl: no executions\n");
  EXPECT_EQ(Json::parse(Run({"workflow", "list", "-o", "json"}).out),
            Json::parse(R"({"executions": []})"));
  EXPECT_THAT(Run({"workflow", "list", "-o", "jsonl"}).out, IsEmpty());
}

TEST_F(Fluxctl, CountShowHistoryAndDefinitions) {
  workflows.on_CountExecutions = [](const v1::CountExecutionsRequest&,
                                    v1::CountExecutionsResponse* response) {
    response->set_count(3);
    auto& entry = *response->add_by_status();
    entry.set_status(v1::EXECUTION_STATUS_RUNNING);
    entry.set_count(3);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"workflow", "count"}).out, "STATUS   COUNT\nrunning      3\ntotal        3\n");

  workflows.on_DescribeExecution = [](const v1::DescribeExecutionRequest& request,
                                      v1::DescribeExecutionResponse* response) {
    *response->mutable_info() =
        Info(request.execution().workflow_id(), v1::EXECUTION_STATUS_RUNNING);
    response->set_server_time_ms(kStartMs + 1000);
    v1::StepInfo& step = *response->add_steps();
    step.set_name("a");
    step.set_kind("task");
    step.set_state(v1::STEP_STATE_SCHEDULED);
    step.set_reason("no worker has task charts.split");
    EXPECT_EQ(request.items_max(), 50U);
    return grpc::Status::OK;
  };
  const Outcome show = Run({"workflow", "show", "chart-17", "--items", "50"});
  EXPECT_EQ(show.code, 0) << show.err;
  EXPECT_THAT(show.out, HasSubstr("└─ a  task  scheduled"));
  EXPECT_THAT(show.out, HasSubstr("no worker has task charts.split"));
  EXPECT_THAT(Run({"workflow", "show", "chart-17", "--items", "50", "--ascii"}).out,
              HasSubstr("`- a"));

  workflows.on_GetHistory = [](const v1::GetHistoryRequest& request,
                               v1::GetHistoryResponse* response) {
    const bool first = request.page_token().empty();
    v1::HistoryEvent& event = *response->add_events();
    event.set_ordinal(first ? 1 : 2);
    event.set_time_ms(kStartMs + (first ? 0 : 1500));
    event.set_type(first ? "execution.started" : "step.completed");
    if (first) response->set_next_page_token("2");
    return grpc::Status::OK;
  };
  const Outcome history = Run({"workflow", "history", "chart-17"});
  EXPECT_EQ(history.code, 0);
  EXPECT_EQ(history.out,
            "   TIME     #  TYPE               STEP  DETAIL\n"
            "   +0ms     1  execution.started  -\n"
            "  +1.5s     2  step.completed     -\n");
  EXPECT_EQ(Json::parse(Run({"workflow", "history", "x", "-o", "json"}).out)["events"].size(), 2U);
  EXPECT_EQ(
      Json::parse(Run({"workflow", "history", "x", "-o", "json", "--limit", "1"}).out)["events"]
          .size(),
      1U);

  v1::Definition stored;
  workflows.on_PutDefinition = [&](const v1::PutDefinitionRequest& request,
                                   v1::PutDefinitionResponse* response) {
    stored = request.definition();
    response->set_definition_hash("\x01\x02");
    response->set_created(true);
    response->add_warnings("retries capped to 100");
    return grpc::Status::OK;
  };
  workflows.on_GetDefinition = [&](const v1::GetDefinitionRequest&,
                                   v1::GetDefinitionResponse* response) {
    *response->mutable_definition() = stored;
    return grpc::Status::OK;
  };
  const Outcome put = Run(
      {"definition", "put", "-"},
      R"({"name": "d", "format": 1, "scopes": [{"steps": [{"name": "a", "task": {"task": "t"}}]}]})");
  EXPECT_EQ(put.code, 0) << put.err;
  EXPECT_THAT(put.out, HasSubstr("0102"));
  EXPECT_EQ(put.err, "fluxctl: warning: retries capped to 100\n");
  EXPECT_EQ(stored.scopes(0).steps(0).task().task(), "t");
  EXPECT_THAT(Run({"definition", "show", "d"}).out, HasSubstr("└─ a  task"));
  const std::string copy = stored.SerializeAsString();
  EXPECT_EQ(
      Run({"definition", "put", "-"}, Run({"definition", "show", "d", "-o", "json"}).out).code, 0);
  EXPECT_EQ(stored.SerializeAsString(), copy) << "what show prints, put takes";
  EXPECT_EQ(Run({"definition", "put", "/nonexistent/file.json"}).code, 3);
}

TEST_F(Fluxctl, OperatorsViews) {
  const Outcome workers = Run({"worker", "list"});
  EXPECT_EQ(workers.code, 0);
  EXPECT_THAT(workers.out, HasSubstr("host:12\\x1b[31m"))
      << "a worker cannot paint the operator's terminal";
  EXPECT_EQ(Run({"worker", "list", "--queue", "empty"}).err,
            "fluxctl: no workers are connected to queue empty\n");
  EXPECT_THAT(Run({"task-queue", "list"}).out, HasSubstr("default"));
  EXPECT_THAT(Run({"task-queue", "show", "nlp"}).out, HasSubstr("no worker has this task"));
  EXPECT_THAT(Run({"admin", "info"}).out, HasSubstr("9.9.9"));
  EXPECT_EQ(Json::parse(Run({"admin", "info", "-o", "json"}).out)["counters"]["commits"], 7);
  EXPECT_EQ(Run({"admin", "verify", "fine"}).code, 0);
  const Outcome damaged = Run({"admin", "verify", "damaged"});
  EXPECT_EQ(damaged.code, 6);
  EXPECT_THAT(damaged.err, HasSubstr("step 3 differs"));
}

TEST_F(Fluxctl, CancelByIdReportsEachOutcome) {
  AcceptCancels();
  const Outcome one = Run({"workflow", "cancel", "run-0", "--reason", "wrong input"});
  EXPECT_EQ(one.code, 0) << one.err;
  ASSERT_EQ(cancels.size(), 1U);
  EXPECT_EQ(cancels[0].reason(), "wrong input");
  EXPECT_THAT(cancels[0].identity(), StartsWith("fluxctl:tester@"));
  const Outcome refused = Run({"workflow", "cancel", "run-1"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_EQ(refused.err, "fluxctl: run-1 is completed already (failed_precondition)\n");
  const Outcome several = Run({"workflow", "cancel", "run-0", "run-1", "run-2"});
  EXPECT_EQ(several.code, 4);
  EXPECT_THAT(several.out, HasSubstr("run-0                     cancel requested\n"));
  EXPECT_THAT(several.out, HasSubstr("run-1                     run-1 is completed already\n"));
  EXPECT_THAT(several.out, HasSubstr("run-2                     cancel requested\n"))
      << "one failure does not stop the rest";
  EXPECT_EQ(several.err, "fluxctl: 1 of 3 failed\n");
}

TEST_F(Fluxctl, ByFilterIsRefusedWithoutATerminalOrYes) {
  AcceptBulks(12);
  const Outcome refused = Run({"workflow", "cancel", "--workflow", "code-chart"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("refusing to cancel 12 executions without asking"));
  EXPECT_THAT(refused.err, HasSubstr("run-9"));
  EXPECT_THAT(refused.err, HasSubstr("and 2 more"));
  EXPECT_THAT(refused.out, IsEmpty());
  ASSERT_EQ(bulk_starts.size(), 1U);
  EXPECT_TRUE(bulk_starts[0].preview());
  EXPECT_THAT(bulk_starts[0].filter().statuses(), testing::Contains(v1::EXECUTION_STATUS_RUNNING))
      << "only open ones";
  EXPECT_THAT(bulk_starts[0].filter().statuses(),
              Not(testing::Contains(v1::EXECUTION_STATUS_COMPLETED)));
  EXPECT_TRUE(bulk_starts[0].operation().has_cancel());
}

TEST_F(Fluxctl, ByFilterTheCoordinatorDoesIt) {
  AcceptBulks(12);
  const Outcome done =
      Run({"workflow", "cancel", "--query", "label.tenant = \"acme\" and started > -2h", "-y",
           "--rate", "50", "--reason", "their contract ended", "-n", "prod"});
  EXPECT_EQ(done.code, 4) << "run-1 refuses";
  EXPECT_EQ(done.out,
            "BULK ID           STATE      MATCHED  DONE  REFUSED  FAILED  TOOK\n"
            "0123456789abcdef  completed       12    11        1       0  1.5s\n"
            "\n"
            "WORKFLOW ID  RUN ID                            ERROR\n"
            "run-1        0123456789abcdef0123456789abcdef  run-1 is completed already\n");
  EXPECT_THAT(done.err, HasSubstr("bulk operation 0123456789abcdef  running  3/12 done, 1 refused\n"
                                  "bulk operation 0123456789abcdef  running  7/12 done, 1 refused\n"
                                  "bulk operation 0123456789abcdef  completed  11/12 done, 1 "
                                  "refused\n"
                                  "fluxctl: 1 refused and 0 failed of 12\n"));
  ASSERT_EQ(bulk_starts.size(), 2U);
  const v1::StartBulkOperationRequest preview = bulk_starts[0];
  const v1::StartBulkOperationRequest start = bulk_starts[1];
  EXPECT_EQ(preview.filter().query(), "label.tenant = \"acme\" and started > -2h");
  EXPECT_EQ(preview.filter().namespace_(), "prod");
  EXPECT_EQ(preview.filter().started_before_ms(), 0);
  EXPECT_FALSE(start.preview());
  EXPECT_EQ(start.filter().query(), preview.filter().query());
  EXPECT_EQ(start.filter().started_before_ms(), kStartMs + 1)
      << "what started after the preview was agreed to by nobody";
  EXPECT_EQ(start.rate_per_second(), 50U);
  EXPECT_EQ(start.reason(), "their contract ended");
  EXPECT_THAT(start.identity(), StartsWith("fluxctl:tester@"));
  EXPECT_EQ(start.request_id().size(), 32U) << "so that a repeated try begins nothing twice";
  EXPECT_THAT(cancels, IsEmpty());

  const Outcome json = Run({"workflow", "terminate", "--workflow", "w", "--started-before",
                            "2020-01-01", "-y", "-o", "json"});
  EXPECT_EQ(json.code, 4);
  const Json document = Json::parse(json.out);
  EXPECT_EQ(document["state"], "completed");
  EXPECT_EQ(document["done"], 11);
  EXPECT_EQ(document["errors"][0]["message"], "run-1 is completed already");
  EXPECT_TRUE(bulk_starts.back().operation().has_terminate());
  EXPECT_EQ(bulk_starts.back().filter().started_before_ms(), 1'577'836'800'000);
  EXPECT_NE(bulk_starts.back().request_id(), start.request_id());
  const Outcome line = Run({"workflow", "cancel", "--workflow", "w", "-y", "-o", "jsonl"});
  EXPECT_EQ(std::count(line.out.begin(), line.out.end(), '\n'), 1);

  AcceptBulks(1);
  const Outcome fine = Run({"workflow", "cancel", "--workflow", "w", "-y"});
  EXPECT_EQ(fine.code, 0) << fine.err;
  EXPECT_THAT(fine.out, Not(HasSubstr("ERROR")));
  AcceptBulks(5, /*fails=*/true);
  const Outcome failed = Run({"workflow", "cancel", "--workflow", "w", "-y"});
  EXPECT_EQ(failed.code, 6);
  EXPECT_THAT(failed.out, HasSubstr("the disk is full"));
  EXPECT_THAT(failed.err, HasSubstr("1 refused and 1 failed of 5"));
}

TEST_F(Fluxctl, ByFilterItBeginsOnceHoweverOftenItIsSent) {
  AcceptBulks(1);
  const auto accept = bulks.on_StartBulkOperation;
  bool lost = false;
  bulks.on_StartBulkOperation = [&](const v1::StartBulkOperationRequest& request,
                                    v1::StartBulkOperationResponse* response) {
    grpc::Status status = accept(request, response);
    if (request.preview() || std::exchange(lost, true)) return status;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the answer is lost");
  };
  EXPECT_EQ(Run({"workflow", "cancel", "--workflow", "w", "-y"}).code, 0);
  ASSERT_EQ(bulk_starts.size(), 3U);
  EXPECT_EQ(bulk_starts[1].request_id(), bulk_starts[2].request_id());
  EXPECT_EQ(bulk_starts[1].request_id().size(), 32U);

  bulks.on_StartBulkOperation = [&](const v1::StartBulkOperationRequest& request,
                                    v1::StartBulkOperationResponse* response) {
    if (request.preview()) return accept(request, response);
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "8 bulk operations are running");
  };
  const Outcome full = Run({"workflow", "cancel", "--workflow", "w", "-y"});
  EXPECT_EQ(full.code, 6);
  EXPECT_THAT(full.err, HasSubstr("hint: 'fluxctl bulk list' shows them"));
}

TEST_F(Fluxctl, ByFilterWhatNoLongerMatchedIsTold) {
  AcceptBulks(5);
  bulks.on_GetBulkOperation = [this](const v1::GetBulkOperationRequest&,
                                     v1::GetBulkOperationResponse* response) {
    bulk.set_done(3);
    bulk.set_state(v1::BULK_STATE_COMPLETED);
    *response->mutable_operation() = bulk;
    return grpc::Status::OK;
  };
  const Outcome outcome = Run({"workflow", "cancel", "--workflow", "w", "-y"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("fluxctl: 2 did not match any more when their turn came\n"));
}

TEST_F(Fluxctl, ByFilterNothingMatches) {
  AcceptBulks(0);
  const Outcome some = Run({"workflow", "delete", "--query", "steps > 3", "-y"});
  EXPECT_EQ(some.code, 0);
  EXPECT_EQ(some.err,
            "fluxctl: no executions match that are completed, failed, cancelled, terminated, "
            "skipped; --status asks for others\n");
  EXPECT_EQ(Run({"workflow", "delete", "--query", "steps > 3", "--status", "failed"}).err,
            "fluxctl: no executions match\n");
  ASSERT_EQ(bulk_starts.size(), 2U) << "two previews";
  EXPECT_THAT(bulk_starts[1].filter().statuses(), ElementsAre(v1::EXECUTION_STATUS_FAILED));
}

TEST_F(Fluxctl, ByFilterAsksOnATerminal) {
  AcceptBulks(12);
  {
    Terminal terminal(Command({"workflow", "cancel", "--workflow", "code-chart"}),
                      Environment(coordinator.address()), 120);
    ASSERT_TRUE(terminal.AwaitScreen("Cancel these 12 executions? [y/N]"));
    EXPECT_THAT(terminal.screen().Text(), HasSubstr("and 2 more"));
    EXPECT_THAT(terminal.screen().Text(), HasSubstr("run-9"));
    terminal.Type("n\n");
    EXPECT_EQ(terminal.Finish(), 0);
    EXPECT_THAT(terminal.screen().Text(), HasSubstr("nothing was done"));
    Settle();
    EXPECT_EQ(bulk_starts.size(), 1U) << "the preview";
  }
  Terminal terminal(Command({"workflow", "cancel", "--workflow", "code-chart"}),
                    Environment(coordinator.address()), 120);
  ASSERT_TRUE(terminal.AwaitScreen("[y/N]"));
  terminal.Type("y\n");
  EXPECT_EQ(terminal.Finish(), 4);
  EXPECT_THAT(terminal.screen().Text(), HasSubstr("cancel  completed  ██"));
  EXPECT_THAT(terminal.screen().Text(), Not(HasSubstr("cancel  running"))) << "drawn over";
  EXPECT_TRUE(terminal.screen().cursor_shown());
  Settle();
  EXPECT_EQ(bulk_starts.size(), 3U);
}

TEST_F(Fluxctl, ByFilterAnInterruptLeavesItRunning) {
  AcceptBulks(12);
  bulk_hangs = true;
  Terminal terminal(Command({"workflow", "cancel", "--workflow", "code-chart", "-y"}),
                    Environment(coordinator.address()), 150);
  ASSERT_TRUE(terminal.AwaitScreen("cancel  running"));
  EXPECT_FALSE(terminal.screen().cursor_shown());
  terminal.Interrupt();
  EXPECT_EQ(terminal.Finish(), 130);
  EXPECT_TRUE(terminal.screen().cursor_shown());
  const std::string text = terminal.screen().Text();
  EXPECT_THAT(text, HasSubstr("stopped watching; bulk operation 0123456789abcdef goes on"));
  EXPECT_THAT(text, HasSubstr("fluxctl bulk watch 0123456789abcdef"));
  Settle();
  EXPECT_EQ(bulk.state(), v1::BULK_STATE_RUNNING);
}

TEST_F(Fluxctl, ByFilterDetached) {
  AcceptBulks(12);
  const Outcome table = Run({"workflow", "pause", "--workflow", "code-chart", "-y", "--detach"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_EQ(table.out, "0123456789abcdef\n") << "for a script";
  EXPECT_THAT(table.err, HasSubstr("it acts on 12 executions; 'fluxctl bulk watch "));
  const Outcome json =
      Run({"workflow", "pause", "--workflow", "code-chart", "-y", "--detach", "-o", "json"});
  EXPECT_EQ(Json::parse(json.out)["id"], kBulkId);
  EXPECT_EQ(bulk_polls, 0);
}

TEST_F(Fluxctl, ByFilterOutlivesARestartOfTheCoordinator) {
  AcceptBulks(12);
  bulk_hangs = true;
  Process process(Command({"workflow", "cancel", "--workflow", "code-chart", "-y"}),
                  Environment(coordinator.address()));
  ASSERT_TRUE(process.Await(1, "11/12 done"));
  coordinator.Stop();
  ASSERT_TRUE(process.Await(1, "fluxctl: lost the connection to " + coordinator.address()));
  {
    const std::lock_guard lock(bulks.mutex);
    bulk_hangs = false;
  }
  coordinator.Start();
  const Outcome outcome = process.Finish();
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.err, HasSubstr("fluxctl: connected to " + coordinator.address() + " again"));
  EXPECT_THAT(outcome.out, HasSubstr("completed"));
}

TEST_F(Fluxctl, BulkOperationsAreListedShownWatchedAndCancelled) {
  AcceptBulks(12);
  EXPECT_EQ(Run({"bulk", "list"}).err, "fluxctl: no bulk operations\n");
  EXPECT_EQ(Json::parse(Run({"bulk", "list", "-o", "json"}).out),
            Json::parse(R"({"operations": []})"));
  bulk_hangs = true;
  ASSERT_EQ(Run({"workflow", "retry", "--query", "steps > 3 or steps = 1", "--step", "merge", "-y",
                 "--detach", "--reason", "the printer is back"})
                .code,
            0);
  const Outcome list = Run({"bulk", "list"});
  EXPECT_EQ(list.code, 0) << list.err;
  EXPECT_THAT(list.out, HasSubstr("0123456789abcdef  retry merge  running       12     0"));
  EXPECT_THAT(list.out, HasSubstr("status in (\"running\", \"failed\") and started < "
                                  "2024-05-01T12:00:00.001Z and (steps > 3 or steps = 1)"));
  EXPECT_EQ(Json::parse(Run({"bulk", "list", "-o", "jsonl"}).out)["id"], kBulkId);
  EXPECT_EQ(Run({"-n", "elsewhere", "bulk", "list"}).err, "fluxctl: no bulk operations\n");
  const Outcome show = Run({"bulk", "show", kBulkId});
  EXPECT_EQ(show.code, 0) << show.err;
  EXPECT_THAT(show.out, HasSubstr("retry merge"));
  EXPECT_THAT(show.out, HasSubstr("3/12 done, 1 refused"));
  EXPECT_THAT(show.out, HasSubstr("the printer is back"));
  EXPECT_THAT(show.out, HasSubstr("run-1 is completed already"));
  EXPECT_EQ(Json::parse(Run({"bulk", "show", kBulkId, "-o", "json"}).out)["matched"], 12);

  Process watch(Command({"bulk", "watch", kBulkId, "-o", "jsonl"}),
                Environment(coordinator.address()));
  ASSERT_TRUE(watch.Await(0, "\"running\""));
  const Outcome cancel = Run({"bulk", "cancel", kBulkId});
  EXPECT_EQ(cancel.code, 0) << cancel.err;
  EXPECT_THAT(cancel.out, HasSubstr("cancelled"));
  const Outcome watched = watch.Finish();
  EXPECT_EQ(watched.code, 4);
  EXPECT_THAT(watched.err, HasSubstr("ended early: cancelled by fluxctl:tester@"));
  std::istringstream stream(watched.out);
  std::vector<std::string> states;
  for (std::string line; std::getline(stream, line);) {
    states.push_back(Json::parse(line)["state"]);
  }
  EXPECT_THAT(states, ElementsAre("running", "cancelled"));
  EXPECT_EQ(Run({"bulk", "cancel", kBulkId}).code, 4) << "it has ended";
  for (const char* command : {"show", "watch", "cancel"}) {
    const Outcome unknown = Run({"bulk", command, "none"});
    EXPECT_EQ(unknown.code, 3) << command;
    EXPECT_THAT(unknown.err, HasSubstr("no bulk operation \"none\""));
    EXPECT_THAT(unknown.err, HasSubstr("hint: 'fluxctl bulk list'"));
  }
}

TEST_F(Fluxctl, AWatchedBulkOperationEndsAtItsTimeout) {
  AcceptBulks(12);
  bulk_hangs = true;
  ASSERT_EQ(Run({"workflow", "cancel", "--workflow", "w", "-y", "--detach"}).code, 0);
  const Outcome late = Run({"bulk", "watch", kBulkId, "--timeout", "1s"});
  EXPECT_EQ(late.code, 5);
  EXPECT_THAT(late.err, HasSubstr("has not ended at the end of --timeout (deadline_exceeded)"));
  EXPECT_THAT(late.err, HasSubstr("goes on"));
  {
    const std::lock_guard lock(bulks.mutex);
    bulk.set_state(v1::BULK_STATE_FAILED);
    bulk.set_failure("the index is damaged");
  }
  const Outcome failed = Run({"bulk", "watch", kBulkId});
  EXPECT_EQ(failed.code, 6);
  EXPECT_THAT(failed.err, HasSubstr("ended early: the index is damaged"));
  coordinator.Stop();
  EXPECT_EQ(Run({"bulk", "watch", kBulkId}).code, 5);
}

TEST_F(Fluxctl, AQueryGoesToTheServerAndItsErrorsShowThePlace) {
  List(3);
  const std::string query = "status = \"failed\" and tenant = \"acme\"";
  ASSERT_EQ(Run({"workflow", "list", "--query", query, "--workflow", "w"}).code, 0);
  EXPECT_EQ(lists[0].filter().query(), query);
  EXPECT_EQ(lists[0].filter().workflow(), "w");
  const grpc::Status refusal(grpc::StatusCode::INVALID_ARGUMENT,
                             "query, position 23: no field is called \"tenant\"");
  workflows.on_ListExecutions = [&](const auto&, auto*) { return refusal; };
  workflows.on_CountExecutions = [&](const auto&, auto*) { return refusal; };
  bulks.on_StartBulkOperation = [&](const auto&, auto*) { return refusal; };
  Define();
  const std::vector<std::vector<std::string>> commands = {
      {"list"},
      {"count"},
      {"cancel"},
      {"delete"},
      {"migrate", "--to", "code-chart@2", "--dry-run"}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.begin(), "workflow");
    command.insert(command.end(), {"--query", query});
    const Outcome outcome = Run(command);
    EXPECT_EQ(outcome.code, 2) << command[1];
    EXPECT_EQ(outcome.err,
              "fluxctl: query, position 23: no field is called \"tenant\" (invalid_argument)\n"
              "  status = \"failed\" and tenant = \"acme\"\n"
              "                        ^\n")
        << command[1];
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST_F(Fluxctl, DeletesByIdAndByFilter) {
  AcceptOperations();
  AcceptBulks(1);
  const Outcome one = Run({"workflow", "delete", "run-0", "--run-id", kRunId, "--reason", "gdpr"});
  EXPECT_EQ(one.code, 0) << one.err;
  EXPECT_THAT(one.out, HasSubstr("deleted"));
  ASSERT_EQ(operations.size(), 1U);
  EXPECT_TRUE(operations[0].operation().has_delete_());
  EXPECT_EQ(operations[0].execution().run_id(), kRunId);
  EXPECT_EQ(operations[0].reason(), "gdpr");
  EXPECT_EQ(Run({"workflow", "delete", "run-1"}).code, 4);
  const Outcome many = Run({"workflow", "delete", "--query", "closed < -30d", "-y"});
  EXPECT_EQ(many.code, 0) << many.err;
  EXPECT_EQ(operations.size(), 2U) << "the coordinator does what is found by filter";
  EXPECT_TRUE(bulk_starts.back().operation().has_delete_());
  EXPECT_THAT(
      bulk_starts.back().filter().statuses(),
      testing::UnorderedElementsAre(v1::EXECUTION_STATUS_COMPLETED, v1::EXECUTION_STATUS_FAILED,
                                    v1::EXECUTION_STATUS_CANCELLED, v1::EXECUTION_STATUS_TERMINATED,
                                    v1::EXECUTION_STATUS_SKIPPED));
  EXPECT_THAT(Run({"workflow", "delete", "--query", "closed < -30d"}).err,
              HasSubstr("refusing to delete 1 execution without asking"));
}

TEST_F(Fluxctl, ALiveViewIsRedrawnInPlace) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Terminal terminal(Command({"workflow", "watch", "chart-17"}), Environment(coordinator.address()),
                    100);
  ASSERT_TRUE(terminal.AwaitScreen("10/100 done"));
  EXPECT_FALSE(terminal.screen().cursor_shown());
  EXPECT_THAT(terminal.screen().Text(), HasSubstr("██"));
  workflows.feed.Send(Picture(60, v1::EXECUTION_STATUS_RUNNING));
  ASSERT_TRUE(terminal.AwaitScreen("60/100 done"));
  EXPECT_THAT(terminal.screen().Text(), Not(HasSubstr("10/100"))) << "drawn over, not below";
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  EXPECT_EQ(terminal.Finish(), 0);
  const std::string text = terminal.screen().Text();
  EXPECT_THAT(text, StartsWith("chart-17  code-chart  completed"));
  EXPECT_THAT(text, HasSubstr("✔ codes"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
  EXPECT_TRUE(terminal.screen().cursor_shown());
  EXPECT_THAT(terminal.bytes(), HasSubstr("\x1b[32m")) << "colour on a terminal";
}

TEST_F(Fluxctl, ALiveViewSaysThatItReconnects) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Terminal terminal(Command({"workflow", "watch", "chart-17", "--no-color"}),
                    Environment(coordinator.address()), 100);
  ASSERT_TRUE(terminal.AwaitScreen("10/100 done"));
  coordinator.Stop();
  ASSERT_TRUE(terminal.AwaitScreen("reconnecting"));
  EXPECT_THAT(terminal.screen().Text(), HasSubstr("fluxctl: lost the connection"));
  coordinator.Start();
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  EXPECT_EQ(terminal.Finish(), 0);
  EXPECT_THAT(terminal.screen().Text(), Not(HasSubstr("reconnecting")));
  EXPECT_THAT(terminal.bytes(), Not(HasSubstr("\x1b[3")));
}

TEST_F(Fluxctl, AnInterruptGivesTheCursorBack) {
  workflows.feed.Send(Picture(10, v1::EXECUTION_STATUS_RUNNING));
  Terminal terminal(Command({"workflow", "watch", "chart-17"}), Environment(coordinator.address()),
                    100);
  ASSERT_TRUE(terminal.AwaitScreen("10/100 done"));
  terminal.Interrupt();
  EXPECT_EQ(terminal.Finish(), 130);
  EXPECT_TRUE(terminal.screen().cursor_shown());
  EXPECT_THAT(terminal.screen().Text(), HasSubstr("stopped watching; chart-17 goes on"));
}

TEST_F(Fluxctl, RunOnATerminalLeavesItsResultLast) {
  AcceptStarts(v1::EXECUTION_STATUS_COMPLETED, "{\"text\":\"a\xc2\x9b[2Jb\"}");
  workflows.feed.Send(Picture(100, v1::EXECUTION_STATUS_COMPLETED));
  Terminal terminal(Command({"workflow", "run", "code-chart", "--id", "chart-17"}),
                    Environment(coordinator.address()), 100);
  EXPECT_EQ(terminal.Finish(), 0);
  EXPECT_THAT(terminal.screen().Text(), testing::EndsWith("{\n  \"text\": \"a\\u009b[2Jb\"\n}\n"));
}

TEST_F(Fluxctl, AFullDiskIsNoticed) {
  List(3);
  Process process(
      {"/bin/sh", "-c", std::string("exec ") + FLUXCTL_BINARY + " workflow list > /dev/full"},
      Environment(coordinator.address()));
  const Outcome outcome = process.Finish();
  EXPECT_EQ(outcome.code, 6);
  EXPECT_THAT(outcome.err, HasSubstr("cannot write to standard output"));
}

TEST_F(Fluxctl, BashCompletesCommandsOptionsAndValues) {
  EXPECT_EQ(
      Process({"bash", "-c", "bash -n <(\"$0\" completion bash)", FLUXCTL_BINARY}, Environment(""))
          .Finish()
          .code,
      0);
  const struct {
    const char* words;  // the last one is being completed
    std::vector<std::string> expected;
    bool all;
  } kCases[] = {
      {"fluxctl w", {"workflow", "worker"}, true},
      {"fluxctl workflow st", {"start"}, true},
      {"fluxctl workflow start code-chart --on-c", {"--on-conflict"}, true},
      {"fluxctl workflow start x --on-conflict ''",
       {"reject", "use-existing", "terminate-existing"},
       true},
      {"fluxctl -o json workflow list --status pa", {"paused"}, true},
      {"fluxctl workflow list --output = j", {"json", "jsonl"}, true},
      {"fluxctl workflow list --out", {"--output"}, true},
      {"fluxctl --address workflow task-queue ''", {"list", "show"}, true},
      {"fluxctl completion ''", {"bash", "zsh", "fish"}, true},
      {"fluxctl workflow cancel --y", {"--yes"}, true},
      {"fluxctl workflow cancel --q", {"--query"}, true},
      {"fluxctl workflow del", {"delete"}, true},
      {"fluxctl bulk ''", {"list", "show", "watch", "cancel"}, true},
      {"fluxctl definition put /etc/host", {"/etc/hostname"}, false},
      {"fluxctl workflow show ''", {}, true},
  };
  for (const auto& c : kCases) {
    const std::string script = std::string("source <(\"$0\" completion bash); COMP_WORDS=(") +
                               c.words +
                               "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); __fluxctl_complete; "
                               "printf '%s\\n' \"${COMPREPLY[@]}\"";
    const Outcome outcome =
        Process({"bash", "-c", script, FLUXCTL_BINARY}, Environment("")).Finish();
    EXPECT_THAT(outcome.err, IsEmpty()) << c.words;
    std::istringstream stream(outcome.out);
    std::vector<std::string> words;
    for (std::string line; std::getline(stream, line);) {
      if (!line.empty()) words.push_back(line);
    }
    if (c.all) {
      EXPECT_THAT(words, testing::UnorderedElementsAreArray(c.expected)) << c.words;
    } else {
      EXPECT_THAT(words, testing::IsSupersetOf(c.expected)) << c.words;
    }
  }
}

TEST_F(Fluxctl, SignalSendsAnEvent) {
  std::vector<v1::SendEventRequest> events;
  workflows.on_SendEvent = [&](const v1::SendEventRequest& request,
                               v1::SendEventResponse* response) {
    events.push_back(request);
    response->set_run_id(kRunId);
    response->set_duplicate(request.event_id() == "again");
    return grpc::Status::OK;
  };
  const Outcome sent = Run({"workflow", "signal", "chart-17", "approved", "--input", "[true]"});
  EXPECT_EQ(sent.code, 0) << sent.err;
  EXPECT_THAT(sent.out, HasSubstr("accepted"));
  const Outcome later = Run({"workflow", "signal", "chart-17", "approved", "--at",
                             "2030-01-01T00:00:00Z", "--event-id", "mail-3", "--run-id", kRunId});
  EXPECT_EQ(later.code, 0) << later.err;
  EXPECT_THAT(later.out, HasSubstr("due at 2030-01-01T00:00:00.000Z"));
  const Outcome again = Run({"workflow", "signal", "chart-17", "approved", "--in", "2h",
                             "--event-id", "again", "-o", "json"});
  EXPECT_EQ(again.code, 0) << again.err;
  const Json document = Json::parse(again.out);
  EXPECT_EQ(document["duplicate"], true);
  EXPECT_EQ(document["event_id"], "again");
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].event(), "approved");
  EXPECT_EQ(events[0].payload().data(), "[true]");
  EXPECT_EQ(events[0].event_id().size(), 32U) << "so that a repeated try is the same event";
  EXPECT_EQ(events[0].deliver_time_ms(), 0);
  EXPECT_THAT(events[0].identity(), StartsWith("fluxctl:tester@"));
  EXPECT_EQ(events[1].payload().data(), "null");
  EXPECT_EQ(events[1].deliver_time_ms(), 1'893'456'000'000);
  EXPECT_EQ(events[1].execution().run_id(), kRunId);
  EXPECT_GT(events[2].deliver_time_ms(), kStartMs);

  EXPECT_EQ(Run({"workflow", "signal", "chart-17", "approved", "--input", "{"}).code, 2);
  EXPECT_EQ(Run({"workflow", "signal", "chart-17", "a", "--in", "2h", "--at", "now"}).code, 2);
  EXPECT_EQ(Run({"workflow", "signal", "chart-17"}).code, 2);
  EXPECT_EQ(events.size(), 3U);
}

TEST_F(Fluxctl, EventsAreListedAndRepaired) {
  workflows.on_ListEvents = [](const v1::ListEventsRequest& request,
                               v1::ListEventsResponse* response) {
    if (request.execution().workflow_id() == "empty") return grpc::Status::OK;
    v1::EventInfo& read = *response->add_events();
    read.set_number(1);
    read.set_event("approved");
    read.set_event_id("mail-3");
    read.set_time_ms(kStartMs);
    read.set_delivered(true);
    read.set_readers(2);
    if (request.payloads()) *read.mutable_payload() = JsonPayload("true");
    return grpc::Status::OK;
  };
  const Outcome listed = Run({"event", "list", "chart-17", "--payloads"});
  EXPECT_EQ(listed.code, 0) << listed.err;
  EXPECT_THAT(listed.out, HasSubstr("read by 2 steps"));
  EXPECT_THAT(listed.out, HasSubstr("true"));
  EXPECT_EQ(
      Json::parse(Run({"event", "list", "chart-17", "-o", "json"}).out)["events"][0]["payload"],
      true);
  EXPECT_EQ(Run({"event", "list", "empty"}).err, "fluxctl: no events\n");

  AcceptOperations();
  EXPECT_EQ(Run({"event", "cancel", "chart-17", "mail-3", "--reason", "by mistake"}).code, 0);
  EXPECT_EQ(
      Run({"event", "edit", "chart-17", "approved", "--input", "false", "--number", "4"}).code, 0);
  const Outcome replayed =
      Run({"event", "replay", "chart-17", "approved", "-f", "-"}, "{\"a\": 1}");
  EXPECT_EQ(replayed.code, 0) << replayed.err;
  EXPECT_THAT(replayed.out, HasSubstr("event replayed"));
  ASSERT_EQ(operations.size(), 3U);
  EXPECT_EQ(operations[0].operation().cancel_event().event_id(), "mail-3");
  EXPECT_EQ(operations[0].reason(), "by mistake");
  EXPECT_EQ(operations[1].operation().edit_event().number(), 4U);
  EXPECT_EQ(operations[1].operation().edit_event().payload().data(), "false");
  EXPECT_EQ(operations[2].operation().replay_event().payload().data(), "{\"a\": 1}");
  EXPECT_EQ(Run({"event", "edit", "chart-17", "approved"}).code, 2) << "without a value";
}

TEST_F(Fluxctl, RepairsOneExecution) {
  AcceptOperations();
  const std::vector<std::vector<std::string>> commands = {
      {"pause", "chart-17"},
      {"resume", "chart-17"},
      {"retry", "chart-17"},
      {"retry", "chart-17", "--step", "codes[17].parse"},
      {"park", "chart-17", "merge"},
      {"skip", "chart-17", "codes[17].parse"},
      {"set-result", "chart-17", "merge", "--input", "[1, 2]"},
      {"rewind", "chart-17", "merge", "--run-id", kRunId}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.begin(), "workflow");
    command.insert(command.end(), {"--reason", "the printer was off"});
    const Outcome done = Run(command);
    EXPECT_EQ(done.code, 0) << command[1] << done.err;
  }
  ASSERT_EQ(operations.size(), commands.size());
  for (const v1::OperateExecutionRequest& request : operations) {
    EXPECT_EQ(request.execution().workflow_id(), "chart-17");
    EXPECT_EQ(request.reason(), "the printer was off");
    EXPECT_THAT(request.identity(), StartsWith("fluxctl:tester@"));
  }
  EXPECT_TRUE(operations[0].operation().has_pause());
  EXPECT_TRUE(operations[1].operation().has_resume());
  EXPECT_EQ(operations[2].operation().retry().step(), "");
  EXPECT_EQ(operations[3].operation().retry().step(), "codes[17].parse");
  EXPECT_EQ(operations[4].operation().park().step(), "merge");
  EXPECT_EQ(operations[5].operation().skip().step(), "codes[17].parse");
  EXPECT_EQ(operations[6].operation().set_result().result().data(), "[1, 2]");
  EXPECT_EQ(operations[7].operation().rewind().step(), "merge");
  EXPECT_EQ(operations[7].execution().run_id(), kRunId);
  EXPECT_THAT(Run({"workflow", "retry", "chart-17"}).out, HasSubstr("3 steps are tried again"));
  const Outcome refused = Run({"workflow", "skip", "run-1", "merge"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_THAT(refused.err, HasSubstr("hint: 'fluxctl workflow show run-1' shows where it stands"));
}

TEST_F(Fluxctl, RepairsManyWithAPreview) {
  AcceptBulks(3);
  const Outcome refused = Run({"workflow", "retry", "--workflow", "code-chart"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("refusing to retry 3 executions without asking"));
  EXPECT_THAT(Run({"workflow", "skip", "--workflow", "code-chart", "merge"}).err,
              HasSubstr("refusing to skip merge in 3 executions without asking"));
  const Outcome done = Run({"workflow", "retry", "--workflow", "code-chart", "-y", "-o", "json"});
  EXPECT_EQ(done.code, 4) << "run-1 refuses";
  EXPECT_THAT(bulk_starts.back().filter().statuses(),
              testing::Contains(v1::EXECUTION_STATUS_FAILED));
  const struct {
    std::vector<std::string> arguments;
    std::function<bool(const v1::Operation&)> expected;
  } kCases[] = {
      {{"pause"}, [](const v1::Operation& o) { return o.has_pause(); }},
      {{"resume"}, [](const v1::Operation& o) { return o.has_resume(); }},
      {{"retry", "--step", "merge"},
       [](const v1::Operation& o) { return o.retry().step() == "merge"; }},
      {{"park", "merge"}, [](const v1::Operation& o) { return o.park().step() == "merge"; }},
      {{"skip", "codes[17].parse"},
       [](const v1::Operation& o) { return o.skip().step() == "codes[17].parse"; }},
      {{"set-result", "merge", "--input", "[1]"},
       [](const v1::Operation& o) {
         return o.set_result().step() == "merge" && o.set_result().result().data() == "[1]";
       }},
      {{"rewind", "merge"}, [](const v1::Operation& o) { return o.rewind().step() == "merge"; }},
  };
  for (const auto& c : kCases) {
    std::vector<std::string> command = {"workflow"};
    command.insert(command.end(), c.arguments.begin(), c.arguments.end());
    command.insert(command.end(), {"--query", "steps > 3", "-y", "--detach"});
    const Outcome outcome = Run(command);
    EXPECT_EQ(outcome.code, 0) << c.arguments[0] << outcome.err;
    EXPECT_TRUE(c.expected(bulk_starts.back().operation()))
        << bulk_starts.back().ShortDebugString();
    EXPECT_EQ(bulk_starts.back().filter().query(), "steps > 3");
  }
  EXPECT_EQ(Run({"workflow", "pause"}).code, 2) << "neither ids nor filters";
}

TEST_F(Fluxctl, WhatMayNotBeDoneTwiceIsSentOnce) {
  int calls = 0;
  workflows.on_OperateExecution = [&](const v1::OperateExecutionRequest&,
                                      v1::OperateExecutionResponse*) {
    return ++calls % 2 == 1 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "try later")
                            : grpc::Status::OK;
  };
  const Outcome rewound = Run({"workflow", "rewind", "chart-17", "merge"});
  EXPECT_EQ(rewound.code, 5);
  EXPECT_THAT(rewound.err, HasSubstr("it may have been done"));
  EXPECT_EQ(calls, 1);
  calls = 0;
  EXPECT_EQ(Run({"workflow", "pause", "chart-17"}).code, 0);
  EXPECT_EQ(calls, 2);
}

TEST_F(Fluxctl, MigratesToANamedDefinition) {
  List(2);
  AcceptOperations();
  Define();
  const Outcome dry = Run({"workflow", "migrate", "run-0", "--to", "code-chart@2", "--dry-run"});
  EXPECT_EQ(dry.code, 0) << dry.err;
  EXPECT_THAT(dry.out, HasSubstr("can be migrated"));
  ASSERT_EQ(operations.size(), 1U);
  EXPECT_TRUE(operations[0].operation().migrate().dry_run());
  EXPECT_EQ(operations[0].operation().migrate().definition_hash(),
            std::string(31, '\x11') + '\x02');
  const Outcome each = Run({"workflow", "migrate", "--workflow", "code-chart", "--query",
                            "steps > 3", "--to", "@1", "--dry-run"});
  EXPECT_EQ(each.code, 4) << each.err;
  EXPECT_THAT(each.out, HasSubstr("can be migrated"));
  EXPECT_THAT(each.out, HasSubstr("run-1 is completed already")) << "of each why not";
  EXPECT_EQ(lists.back().filter().query(), "steps > 3");
  ASSERT_EQ(operations.size(), 3U);
  EXPECT_TRUE(operations[2].operation().migrate().dry_run());
  AcceptBulks(2);
  const Outcome many = Run({"workflow", "migrate", "--workflow", "code-chart", "--to", "@1", "-y"});
  EXPECT_EQ(many.code, 4) << many.err;
  EXPECT_EQ(operations.size(), 3U);
  EXPECT_FALSE(bulk_starts.back().operation().migrate().dry_run());
  EXPECT_EQ(bulk_starts.back().operation().migrate().definition_hash(),
            std::string(31, '\x11') + '\x01');
  EXPECT_THAT(Run({"workflow", "migrate", "--workflow", "code-chart", "--to", "@1", "--dry-run",
                   "--detach"})
                  .err,
              HasSubstr("not with --dry-run"));
  EXPECT_EQ(Run({"workflow", "migrate", "run-0", "--to", "code-chart@9"}).code, 3);
}

TEST_F(Fluxctl, DiffTellsWhatChanged) {
  Define();
  const Outcome table = Run({"definition", "diff", "code-chart@1", "@2"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_EQ(table.out,
            "CHANGE   STEP          KIND  FIELD                    FROM  TO\n"
            "changed  the workflow        version                  1     2\n"
            "changed  merge         task  task.retry.max_attempts  3     5\n");
  EXPECT_THAT(table.err, HasSubstr("from code-chart@1 (111111111111) to code-chart@2"));
  // By the beginning of a hash that only one has, and by one that both have.
  const std::string one = std::string(60, '1') + "1101";
  const Outcome json = Run({"definition", "diff", one, "code-chart", "-o", "json"});
  EXPECT_EQ(json.code, 0) << json.err;
  const Json document = Json::parse(json.out);
  EXPECT_EQ(document["from"]["version"], "1");
  EXPECT_EQ(document["to"]["version"], "2");
  EXPECT_EQ(document["steps"][0]["fields"][0]["to"], "5");
  EXPECT_EQ(Run({"definition", "diff", "11111111", "@2"}).code, 2) << "ambiguous";
  EXPECT_THAT(Run({"definition", "diff", "code-chart@2", "code-chart"}).err,
              HasSubstr("do the same"));
  EXPECT_EQ(Run({"definition", "diff", "code-chart@9", "@2"}).code, 3);
}

}  // namespace
}  // namespace flux
