#include "engine/server/coordinator.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/server/address.h"
#include "engine/server/bulk_service.h"
#include "engine/server/malformed.h"
#include "engine/server/runtime.h"
#include "engine/server/schedule_service.h"
#include "engine/server/services.h"
#include "engine/server/worker_service.h"
#include "proto/bridge.h"
#include "store/rocks_store.h"

namespace flux::server {
namespace {

// A message may carry many payloads; its parts have their own, smaller limits.
// With the engine's batch_bytes_max, and what records add to results, less than one entry of the
// log may have.
constexpr int kReceivedBytesMax = 48 * 1024 * 1024;
constexpr int kSentBytesMax = 64 * 1024 * 1024;
constexpr int kReadThreads = 2;
// Buffers of the database. The log's need only hold its batches; those of the rows are so large
// that compaction keeps up with large payloads, which it did not at 4 MiB.
constexpr size_t kLogBufferBytes = 4 * 1024 * 1024;
constexpr size_t kRowsBufferBytes = 16 * 1024 * 1024;
constexpr size_t kBlockCacheBytes = 32 * 1024 * 1024;

void LogLine(int level, const std::string& text) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err};
  spdlog::log(kLevels[level], "{}", text);
}

// Between the engine and the worker streams: each only knows the other's interface.
class Exchange final : public WorkerStreamSink, public engine::WorkerOutput {
 public:
  void Connect(engine::Engine* engine, WorkerService* service) {
    engine_ = engine;
    service_ = service;
    engine->set_resume([service] { service->ResumeAll(); });
  }
  void OnOpen(StreamId stream, std::string peer) override {
    engine_->OnWorkerOpen(stream, std::move(peer));
  }
  bool OnMessage(StreamId stream, std::unique_ptr<v1::ConnectRequest> message) override {
    return engine_->OnWorkerMessage(stream, std::move(message));
  }
  void OnClosed(StreamId stream) override { engine_->OnWorkerClosed(stream); }
  void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) override {
    service_->Send(stream, std::move(message));
  }
  void Close(StreamId stream, absl::Status why) override {
    service_->Close(stream, std::move(why));
  }

 private:
  engine::Engine* engine_ = nullptr;
  WorkerService* service_ = nullptr;
};

class CoordinatorImpl final : public Coordinator {
 public:
  absl::Status Open(const Config& config, std::function<void(absl::Status)> on_fatal);
  ~CoordinatorImpl() override {
    if (server_ != nullptr) Shutdown();
    // Whoever might still call the engine ends before it.
    scheduler_thread_ = nullptr;
    thread_ = nullptr;
    pool_ = nullptr;
    store_ = nullptr;
  }
  int port() const override { return port_; }
  bool Shutdown() override;

 private:
  absl::Duration drain_timeout_;
  SystemClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<ThreadPool> pool_;
  Exchange exchange_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<engine::Scheduler> scheduler_;
  std::unique_ptr<EngineThread> thread_;
  std::unique_ptr<SchedulerThread> scheduler_thread_;
  std::unique_ptr<WorkerService> workers_;
  std::unique_ptr<WorkflowServiceImpl> workflows_;
  std::unique_ptr<AdminServiceImpl> admin_;
  std::unique_ptr<ScheduleServiceImpl> schedules_;
  std::unique_ptr<BulkServiceImpl> bulk_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

absl::Status CoordinatorImpl::Open(const Config& config,
                                   std::function<void(absl::Status)> on_fatal) {
  FLUX_RETURN_IF_ERROR(CheckListenAddress(config.listen));
  drain_timeout_ = config.drain_timeout;
  store::RocksOptions options;
  options.path = config.data;
  options.shards = config.shards;
  options.reserve_bytes = config.reserve_bytes;
  options.ballast_bytes = config.ballast_bytes;
  options.reclaim_interval = config.reclaim_interval;
  options.accept_damaged_tail = config.accept_damaged_tail;
  options.log_buffer_bytes = kLogBufferBytes;
  options.rows_buffer_bytes = kRowsBufferBytes;
  options.block_cache_bytes = kBlockCacheBytes;
  options.on_warning = [](const std::string& line) { spdlog::warn("store: {}", line); };
  // Unavailable is for the network here: what the store calls so is a directory that cannot be
  // used.
  const auto of_the_store = [](absl::Status status) {
    return absl::IsUnavailable(status) ? absl::FailedPreconditionError(status.message()) : status;
  };
  auto store = store::RocksStore::Open(options);
  if (!store.ok()) return of_the_store(store.status());
  store_ = *std::move(store);
  for (const std::string& note : store_->OpenNotes()) spdlog::warn("{}", note);

  pool_ = std::make_unique<ThreadPool>(kReadThreads);
  engine::Engine::Environment environment;
  environment.store = store_.get();
  environment.clock = &clock_;
  environment.background = pool_.get();
  environment.workers = &exchange_;
  environment.random = [generator = std::make_shared<std::mt19937_64>(
                            (static_cast<uint64_t>(std::random_device{}()) << 32) ^
                            std::random_device{}())] { return (*generator)(); };
  // Shared by the engine and the scheduler, whichever sees the failure first.
  const std::function<void(absl::Status)> on_fatal_once =
      [on_fatal = std::move(on_fatal),
       told = std::make_shared<std::atomic<bool>>(false)](absl::Status status) {
        if (!told->exchange(true)) on_fatal(std::move(status));
      };
  environment.on_fatal = on_fatal_once;
  environment.log = LogLine;
  engine::EngineOptions engine_options = config.engine;
  engine_options.data_directory = engine::ToUtf8(config.data);
  engine_options.version = FLUX_VERSION;
  auto engine = engine::Engine::Open(std::move(engine_options), environment);
  if (!engine.ok()) return of_the_store(engine.status());
  engine_ = *std::move(engine);
  auto scheduler = engine::Scheduler::Open({}, {.engine = engine_.get(),
                                                .store = store_.get(),
                                                .clock = &clock_,
                                                .on_fatal = on_fatal_once,
                                                .log = LogLine});
  if (!scheduler.ok()) return of_the_store(scheduler.status());
  scheduler_ = *std::move(scheduler);

  workers_ = std::make_unique<WorkerService>(&exchange_);
  exchange_.Connect(engine_.get(), workers_.get());
  workflows_ = std::make_unique<WorkflowServiceImpl>(engine_.get(), pool_.get());
  admin_ = std::make_unique<AdminServiceImpl>(engine_.get());
  schedules_ = std::make_unique<ScheduleServiceImpl>(scheduler_.get());
  bulk_ = std::make_unique<BulkServiceImpl>(engine_.get());

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(kReceivedBytesMax);
  builder.SetMaxSendMessageSize(kSentBytesMax);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddListeningPort(config.listen, grpc::InsecureServerCredentials(), &port_);
  builder.experimental().SetInterceptorCreators(MalformedRequestInterceptors());
  builder.RegisterService(workers_.get());
  builder.RegisterService(workflows_.get());
  builder.RegisterService(admin_.get());
  builder.RegisterService(schedules_.get());
  builder.RegisterService(bulk_.get());
  thread_ = std::make_unique<EngineThread>(engine_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    if (server_ != nullptr) server_->Shutdown();
    server_ = nullptr;
    return ListenFailure(config.listen);
  }
  // Only a coordinator that serves starts anything by itself.
  scheduler_thread_ = std::make_unique<SchedulerThread>(scheduler_.get());
  server_->GetHealthCheckService()->SetServingStatus(true);
  return absl::OkStatus();
}

bool CoordinatorImpl::Shutdown() {
  if (server_ == nullptr) return true;
  server_->GetHealthCheckService()->SetServingStatus(false);
  workflows_->Shutdown();
  scheduler_->BeginShutdown();
  // While the loop turns, calls under way are answered and goodbyes leave; only then does it end.
  auto begun = std::make_shared<std::promise<void>>();  // the loop may come to it after we gave up
  engine_->BeginShutdown([begun] { begun->set_value(); });
  (void)begun->get_future().wait_for(absl::ToChronoNanoseconds(drain_timeout_));
  workers_->Shutdown(absl::UnavailableError("the coordinator is shutting down; reconnect"));
  workers_->WaitUntilIdle(drain_timeout_);
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  server_->Wait();
  scheduler_thread_ = nullptr;
  const bool drained = thread_->Drain(drain_timeout_);
  server_ = nullptr;
  pool_ = nullptr;  // jobs under way finish; what they post is taken up by nobody
  return drained;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(
    const Config& config, std::function<void(absl::Status)> on_fatal) {
  auto coordinator = std::make_unique<CoordinatorImpl>();
  FLUX_RETURN_IF_ERROR(coordinator->Open(config, std::move(on_fatal)));
  return std::unique_ptr<Coordinator>(std::move(coordinator));
}

}  // namespace flux::server
