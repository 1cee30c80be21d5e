#include "tests/e2e/api.h"

#include <grpcpp/generic/generic_stub.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/e2e/processes.h"

namespace flux::e2e {
namespace {

constexpr int kReconnectMs = 20;
constexpr int kReconnectMaxMs = 100;
constexpr int kMessageBytesMax = 128 * 1024 * 1024;
constexpr absl::Duration kPollMax = absl::Seconds(5);

std::chrono::system_clock::time_point After(absl::Duration duration) {
  return absl::ToChronoTime(absl::Now() + duration);
}

const v1::StepInfo* FindStep(const google::protobuf::RepeatedPtrField<v1::StepInfo>& steps,
                             const std::string& name) {
  for (const v1::StepInfo& step : steps) {
    if (step.name() == name) return &step;
    for (const v1::FrameInfo& frame : step.frames()) {
      if (const v1::StepInfo* found = FindStep(frame.steps(), name)) return found;
    }
  }
  return nullptr;
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

v1::Payload Json(std::string_view text) {
  v1::Payload payload;
  payload.set_data(std::string(text));
  payload.set_encoding(v1::ENCODING_JSON);
  return payload;
}

v1::Payload JsonNumber(int64_t number) { return Json(std::to_string(number)); }

v1::ExecutionRef Ref(const std::string& workflow_id, const std::string& run_id) {
  v1::ExecutionRef ref;
  ref.set_workflow_id(workflow_id);
  ref.set_run_id(run_id);
  return ref;
}

// ---- calls
// -------------------------------------------------------------------------------------------------------

Api::Api(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMaxMs);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  channel_ = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  workflows_ = v1::WorkflowService::NewStub(channel_);
  admin_ = v1::AdminService::NewStub(channel_);
}

template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Api::Call(Stub& stub,
                                   grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                const Request&, Response*),
                                   const Request& request, absl::Duration deadline) {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(After(deadline));
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::StatusOr<std::string> Api::Put(const v1::Definition& definition) {
  v1::PutDefinitionRequest request;
  *request.mutable_definition() = definition;
  auto response = Call(*workflows_, &v1::WorkflowService::Stub::PutDefinition, request);
  if (!response.ok()) return response.status();
  return response->definition_hash();
}

absl::StatusOr<v1::StartWorkflowResponse> Api::Start(const v1::StartWorkflowRequest& request,
                                                     absl::Duration deadline) {
  return Call(*workflows_, &v1::WorkflowService::Stub::StartWorkflow, request, deadline);
}

absl::StatusOr<v1::GetResultResponse> Api::Result(const v1::ExecutionRef& ref, absl::Duration wait,
                                                  absl::Duration deadline) {
  v1::GetResultRequest request;
  *request.mutable_execution() = ref;
  request.set_wait_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(wait)));
  return Call(*workflows_, &v1::WorkflowService::Stub::GetResult, request, deadline);
}

absl::StatusOr<v1::GetResultResponse> Api::AwaitClosed(const v1::ExecutionRef& ref,
                                                       absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  while (true) {
    auto response = Result(ref, kPollMax);
    if (!response.ok() || response->status() != v1::EXECUTION_STATUS_RUNNING) return response;
    if (absl::Now() > deadline) {
      auto described = Describe(ref);
      return absl::DeadlineExceededError(
          absl::StrCat("execution ", ref.workflow_id(), " does not end: ",
                       described.ok() ? described->DebugString() : described.status().ToString()));
    }
  }
}

absl::StatusOr<v1::DescribeExecutionResponse> Api::Describe(const v1::ExecutionRef& ref) {
  v1::DescribeExecutionRequest request;
  *request.mutable_execution() = ref;
  request.set_payloads(true);
  request.set_items_max(1'000);
  return Call(*workflows_, &v1::WorkflowService::Stub::DescribeExecution, request);
}

absl::StatusOr<v1::StepInfo> Api::DescribeStep(const v1::ExecutionRef& ref,
                                               const std::string& name) {
  auto described = Describe(ref);
  if (!described.ok()) return described.status();
  const v1::StepInfo* step = FindStep(described->steps(), name);
  if (step == nullptr) {
    return absl::NotFoundError(absl::StrCat("no step ", name, " in:\n", described->DebugString()));
  }
  return *step;
}

absl::StatusOr<std::vector<v1::HistoryEvent>> Api::History(const v1::ExecutionRef& ref) {
  std::vector<v1::HistoryEvent> events;
  v1::GetHistoryRequest request;
  *request.mutable_execution() = ref;
  request.set_payloads(true);
  do {
    auto page = Call(*workflows_, &v1::WorkflowService::Stub::GetHistory, request);
    if (!page.ok()) return page.status();
    events.insert(events.end(), page->events().begin(), page->events().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return events;
}

absl::StatusOr<v1::VerifyExecutionResponse> Api::Verify(const v1::ExecutionRef& ref) {
  v1::VerifyExecutionRequest request;
  *request.mutable_execution() = ref;
  return Call(*admin_, &v1::AdminService::Stub::VerifyExecution, request);
}

absl::StatusOr<uint64_t> Api::Count(const v1::ExecutionFilter& filter) {
  v1::CountExecutionsRequest request;
  *request.mutable_filter() = filter;
  auto response = Call(*workflows_, &v1::WorkflowService::Stub::CountExecutions, request);
  if (!response.ok()) return response.status();
  return response->count();
}

absl::StatusOr<std::vector<v1::ExecutionInfo>> Api::List(uint32_t page_size) {
  std::vector<v1::ExecutionInfo> executions;
  v1::ListExecutionsRequest request;
  request.set_page_size(page_size);
  do {
    auto page = Call(*workflows_, &v1::WorkflowService::Stub::ListExecutions, request);
    if (!page.ok()) return page.status();
    executions.insert(executions.end(), page->executions().begin(), page->executions().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return executions;
}

absl::StatusOr<v1::GetServerInfoResponse> Api::Info() {
  return Call(*admin_, &v1::AdminService::Stub::GetServerInfo, v1::GetServerInfoRequest());
}

absl::StatusOr<std::vector<v1::WorkerInfo>> Api::Workers() {
  auto response = Call(*admin_, &v1::AdminService::Stub::ListWorkers, v1::ListWorkersRequest());
  if (!response.ok()) return response.status();
  return std::vector<v1::WorkerInfo>(response->workers().begin(), response->workers().end());
}

absl::StatusOr<v1::GetTaskQueueResponse> Api::Queue(const std::string& name) {
  v1::GetTaskQueueRequest request;
  request.set_name(name);
  return Call(*admin_, &v1::AdminService::Stub::GetTaskQueue, request);
}

absl::Status Api::Cancel(const v1::ExecutionRef& ref, const std::string& reason) {
  v1::CancelExecutionRequest request;
  *request.mutable_execution() = ref;
  request.set_reason(reason);
  return Call(*workflows_, &v1::WorkflowService::Stub::CancelExecution, request).status();
}

absl::Status Api::Terminate(const v1::ExecutionRef& ref, const std::string& reason) {
  v1::TerminateExecutionRequest request;
  *request.mutable_execution() = ref;
  request.set_reason(reason);
  return Call(*workflows_, &v1::WorkflowService::Stub::TerminateExecution, request).status();
}

uint64_t Api::Counter(const std::string& name) {
  auto info = Info();
  EXPECT_TRUE(info.ok()) << info.status();
  if (!info.ok()) return 0;
  const auto found = info->counters().find(name);
  EXPECT_NE(found, info->counters().end()) << "no counter " << name;
  return found == info->counters().end() ? 0 : found->second;
}

Api::RawAnswer Api::CallRaw(const std::string& method, const std::string& bytes) {
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(After(kCallDeadline));
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  RawAnswer answer;
  auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  next();
  const grpc::Slice slice(bytes);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  next();
  grpc::ByteBuffer message;
  for (call->Read(&message, nullptr); next(); call->Read(&message, nullptr)) {
    std::vector<grpc::Slice> slices;
    if (!message.Dump(&slices).ok()) break;
    std::string& text = answer.messages.emplace_back();
    for (const grpc::Slice& part : slices) {
      text.append(reinterpret_cast<const char*>(part.begin()), part.size());
    }
  }
  call->Finish(&answer.status, nullptr);
  next();
  queue.Shutdown();
  next();
  return answer;
}

// ---- a worker by hand
// --------------------------------------------------------------------------------------------

RawWorker::RawWorker(Api& api) : stub_(v1::WorkerService::NewStub(api.channel())) {
  context_.set_wait_for_ready(true);
  stream_ = stub_->Connect(&context_);
  reader_ = std::thread([this] { ReadAll(); });
}

RawWorker::~RawWorker() { Break(); }

v1::WorkerHello RawWorker::HelloOf(const std::string& id, std::vector<std::string> tasks) {
  v1::WorkerHello hello;
  hello.set_worker_id(id);
  hello.set_session_id("session-of-" + id);
  hello.set_slots(1);
  hello.set_sdk_version("by hand");
  for (std::string& task : tasks) hello.add_tasks(std::move(task));
  return hello;
}

void RawWorker::ReadAll() {
  v1::ConnectResponse message;
  while (stream_->Read(&message)) {
    if (message.ping() != 0 && answers_pings_) {
      v1::ConnectRequest pong;
      pong.set_pong(message.ping());
      Send(pong);
    }
    const std::lock_guard lock(mutex_);
    if (message.has_welcome()) welcomes_.push_back(message.welcome());
    for (const v1::Task& task : message.tasks()) tasks_.push_back(task);
    for (const v1::ResultAck& ack : message.acks()) acks_.push_back(ack);
    for (const v1::CancelTask& cancel : message.cancels()) cancels_.push_back(cancel);
    changed_.notify_all();
  }
  absl::Status status;
  {
    const std::lock_guard lock(write_mutex_);
    writes_done_ = true;
    status = FromGrpc(stream_->Finish());
  }
  const std::lock_guard lock(mutex_);
  status_ = status;
  ended_ = true;
  changed_.notify_all();
}

void RawWorker::Send(const v1::ConnectRequest& message) {
  const std::lock_guard lock(write_mutex_);
  if (!writes_done_) stream_->Write(message);
}

void RawWorker::Hello(const v1::WorkerHello& hello, uint32_t credit) {
  v1::ConnectRequest message;
  *message.mutable_hello() = hello;
  message.set_credit(credit);
  Send(message);
}

void RawWorker::Credit(uint32_t credit) {
  v1::ConnectRequest message;
  message.set_credit(credit);
  Send(message);
}

void RawWorker::Answer(const v1::TaskToken& token, const v1::Payload& value) {
  v1::ConnectRequest message;
  v1::TaskResult* result = message.add_results();
  *result->mutable_token() = token;
  *result->mutable_value() = value;
  Send(message);
}

template <typename T>
T RawWorker::Take(std::deque<T>& queue, const char* what) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoSeconds(kPatience),
                    [&] { return !queue.empty() || ended_; });
  if (queue.empty()) {
    ADD_FAILURE() << "no " << what << " came" << (ended_ ? "; the stream ended: " : "")
                  << (ended_ ? status_.ToString() : "");
    return T();
  }
  T first = std::move(queue.front());
  queue.pop_front();
  return first;
}

v1::Welcome RawWorker::AwaitWelcome() { return Take(welcomes_, "welcome"); }
v1::Task RawWorker::AwaitTask() { return Take(tasks_, "task"); }
v1::ResultAck RawWorker::AwaitAck() { return Take(acks_, "acknowledgement"); }
v1::CancelTask RawWorker::AwaitCancel() { return Take(cancels_, "cancel"); }

size_t RawWorker::tasks_waiting() {
  const std::lock_guard lock(mutex_);
  return tasks_.size();
}

void RawWorker::Join() {
  if (reader_.joinable()) reader_.join();
}

absl::Status RawWorker::Finish() {
  {
    const std::lock_guard lock(write_mutex_);
    if (!writes_done_) stream_->WritesDone();
    writes_done_ = true;
  }
  return AwaitEnd();
}

absl::Status RawWorker::AwaitEnd() {
  std::unique_lock lock(mutex_);
  const bool ended =
      changed_.wait_for(lock, absl::ToChronoSeconds(kPatience), [&] { return ended_; });
  EXPECT_TRUE(ended) << "the coordinator does not end the stream";
  return status_;
}

void RawWorker::Break() {
  context_.TryCancel();
  Join();
}

}  // namespace flux::e2e
