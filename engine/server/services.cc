#include "engine/server/services.h"

#include <grpcpp/alarm.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/server/finish.h"
#include "engine/server/to_grpc.h"
#include "proto/bridge.h"

namespace flux::server {
namespace {

constexpr uint32_t kWatchIntervalMs = 500;
constexpr uint32_t kWatchIntervalMinMs = 50;
constexpr uint32_t kWatchIntervalMaxMs = 1'000;  // also how long a watch may hold up a shutdown
constexpr uint32_t kDefinitionsPage = 100;

// One client watching one execution: asks the engine every interval and writes what changed.
//
// State      waits for                next
// asking     the engine's answer      writing if something changed, else sleeping
// writing    OnWriteDone              sleeping, or done if the execution has closed
// sleeping   its alarm                asking
// done       OnDone, then deleted
//
// Exactly one of these is outstanding at a time, so no lock is needed between them; OnCancel only
// sets a flag.
class Watch final : public grpc::ServerWriteReactor<v1::WatchExecutionResponse> {
 public:
  Watch(engine::Engine* engine, v1::WatchExecutionRequest request,
        std::shared_ptr<std::atomic<bool>> stopping)
      : engine_(engine), request_(std::move(request)), stopping_(std::move(stopping)) {
    if (request_.interval_ms() == 0) request_.set_interval_ms(kWatchIntervalMs);
    request_.set_interval_ms(
        std::clamp(request_.interval_ms(), kWatchIntervalMinMs, kWatchIntervalMaxMs));
    Ask();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    if (current_.closed()) return Finish(grpc::Status::OK);
    Sleep();
  }
  void OnCancel() override { cancelled_.store(true, std::memory_order_relaxed); }
  void OnDone() override { delete this; }

 private:
  void Ask() {
    if (cancelled_.load(std::memory_order_relaxed)) return Finish(grpc::Status::CANCELLED);
    if (stopping_->load(std::memory_order_relaxed)) {
      return Finish(
          {grpc::StatusCode::UNAVAILABLE, "the coordinator is shutting down; watch again"});
    }
    engine_->Progress(request_.execution(),
                      [this](absl::StatusOr<v1::WatchExecutionResponse> answer) {
                        if (!answer.ok()) return Finish(ToGrpc(answer.status()));
                        const int64_t now = answer->server_time_ms();
                        answer->clear_server_time_ms();  // alone, it is no change
                        std::string bytes = answer->SerializeAsString();
                        if (bytes == last_) return Sleep();
                        last_ = std::move(bytes);
                        current_ = *std::move(answer);
                        current_.set_server_time_ms(now);
                        StartWrite(&current_);
                      });
  }

  void Sleep() {
    alarm_.Set(std::chrono::system_clock::now() + std::chrono::milliseconds(request_.interval_ms()),
               [this](bool) { Ask(); });
  }

  engine::Engine* const engine_;
  v1::WatchExecutionRequest request_;
  const std::shared_ptr<std::atomic<bool>> stopping_;
  std::atomic<bool> cancelled_{false};
  grpc::Alarm alarm_;
  v1::WatchExecutionResponse current_;
  std::string last_;
};

uint64_t ResidentBytes() {
  // /proc/self/statm: proc(5).
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long long total = 0, resident = 0;
  const int read = std::fscanf(file, "%llu %llu", &total, &resident);
  std::fclose(file);
  return read == 2 ? resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

WorkflowServiceImpl::WorkflowServiceImpl(engine::Engine* engine, engine::Background* background)
    : engine_(engine),
      background_(background),
      stopping_(std::make_shared<std::atomic<bool>>(false)) {}

void WorkflowServiceImpl::Shutdown() { stopping_->store(true, std::memory_order_relaxed); }

grpc::ServerUnaryReactor* WorkflowServiceImpl::PutDefinition(
    grpc::CallbackServerContext* context, const v1::PutDefinitionRequest* request,
    v1::PutDefinitionResponse* response) {
  auto* reactor = context->DefaultReactor();
  if (!request->has_definition()) {
    reactor->Finish({grpc::StatusCode::INVALID_ARGUMENT, "the request has no definition"});
    return reactor;
  }
  background_->Run([this, request, reply = Finish(engine_, reactor, response)]() mutable {
    reply(engine_->definitions().Put(request->definition(), engine_->WallMs()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::GetDefinition(
    grpc::CallbackServerContext* context, const v1::GetDefinitionRequest* request,
    v1::GetDefinitionResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine::Definitions& definitions = engine_->definitions();
  auto graph = request->definition_hash().empty()
                   ? definitions.ByName(request->name(), request->version())
                   : definitions.ByHash(request->definition_hash());
  if (!graph.ok()) {
    reactor->Finish(ToGrpc(graph.status()));
    return reactor;
  }
  *response->mutable_definition() = (*graph)->definition();
  if (auto summary = definitions.Summary((*graph)->hash()); summary.ok()) {
    *response->mutable_summary() = *std::move(summary);
  }
  TellTime(*engine_, response);
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::ListDefinitions(
    grpc::CallbackServerContext* context, const v1::ListDefinitionsRequest* request,
    v1::ListDefinitionsResponse* response) {
  auto* reactor = context->DefaultReactor();
  std::vector<v1::DefinitionSummary> all = engine_->definitions().List(request->name());
  size_t first = 0;
  if (!request->page_token().empty() && !absl::SimpleAtoi(request->page_token(), &first)) {
    reactor->Finish({grpc::StatusCode::INVALID_ARGUMENT, "the page token is not from this list"});
    return reactor;
  }
  const size_t size = request->page_size() == 0 ? kDefinitionsPage : request->page_size();
  first = std::min(first, all.size());
  const size_t end = first + std::min(size, all.size() - first);
  for (size_t i = first; i < end; ++i) *response->add_definitions() = std::move(all[i]);
  if (end < all.size()) response->set_next_page_token(absl::StrCat(end));
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::StartWorkflow(
    grpc::CallbackServerContext* context, const v1::StartWorkflowRequest* request,
    v1::StartWorkflowResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->Start(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::GetResult(grpc::CallbackServerContext* context,
                                                         const v1::GetResultRequest* request,
                                                         v1::GetResultResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->GetResult(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::DescribeExecution(
    grpc::CallbackServerContext* context, const v1::DescribeExecutionRequest* request,
    v1::DescribeExecutionResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->Describe(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::GetHistory(grpc::CallbackServerContext* context,
                                                          const v1::GetHistoryRequest* request,
                                                          v1::GetHistoryResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->History(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchExecutionResponse>* WorkflowServiceImpl::WatchExecution(
    grpc::CallbackServerContext*, const v1::WatchExecutionRequest* request) {
  return new Watch(engine_, *request, stopping_);
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::ListExecutions(
    grpc::CallbackServerContext* context, const v1::ListExecutionsRequest* request,
    v1::ListExecutionsResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->List(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::CountExecutions(
    grpc::CallbackServerContext* context, const v1::CountExecutionsRequest* request,
    v1::CountExecutionsResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->Count(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::CancelExecution(
    grpc::CallbackServerContext* context, const v1::CancelExecutionRequest* request,
    v1::CancelExecutionResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->Cancel(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::TerminateExecution(
    grpc::CallbackServerContext* context, const v1::TerminateExecutionRequest* request,
    v1::TerminateExecutionResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->Terminate(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::SendEvent(grpc::CallbackServerContext* context,
                                                         const v1::SendEventRequest* request,
                                                         v1::SendEventResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->SendEvent(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::ListEvents(grpc::CallbackServerContext* context,
                                                          const v1::ListEventsRequest* request,
                                                          v1::ListEventsResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->ListEvents(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::OperateExecution(
    grpc::CallbackServerContext* context, const v1::OperateExecutionRequest* request,
    v1::OperateExecutionResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->Operate(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* WorkflowServiceImpl::ListDeletions(
    grpc::CallbackServerContext* context, const v1::ListDeletionsRequest* request,
    v1::ListDeletionsResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->ListDeletions(*request, Finish(engine_, reactor, response));
  return reactor;
}

// ---- admin
// ------------------------------------------------------------------------------------------------------

AdminServiceImpl::AdminServiceImpl(engine::Engine* engine) : engine_(engine) {}

grpc::ServerUnaryReactor* AdminServiceImpl::GetServerInfo(grpc::CallbackServerContext* context,
                                                          const v1::GetServerInfoRequest*,
                                                          v1::GetServerInfoResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->Info([this, reactor, response](absl::StatusOr<v1::GetServerInfoResponse> info) {
    if (info.ok()) {
      response->Swap(&*info);
      response->set_resident_bytes(ResidentBytes());
      response->set_cpu_seconds(CpuSeconds());
      TellTime(*engine_, response);
    }
    reactor->Finish(ToGrpc(info.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminServiceImpl::ListWorkers(grpc::CallbackServerContext* context,
                                                        const v1::ListWorkersRequest* request,
                                                        v1::ListWorkersResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->ListWorkers(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* AdminServiceImpl::ListTaskQueues(grpc::CallbackServerContext* context,
                                                           const v1::ListTaskQueuesRequest*,
                                                           v1::ListTaskQueuesResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->ListQueues(Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetTaskQueue(grpc::CallbackServerContext* context,
                                                         const v1::GetTaskQueueRequest* request,
                                                         v1::GetTaskQueueResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->GetQueue(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* AdminServiceImpl::VerifyExecution(
    grpc::CallbackServerContext* context, const v1::VerifyExecutionRequest* request,
    v1::VerifyExecutionResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->Verify(*request, Finish(engine_, reactor, response));
  return reactor;
}

}  // namespace flux::server
