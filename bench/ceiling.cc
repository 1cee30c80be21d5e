#include "bench/ceiling.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>

#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/server/worker_service.h"
#include "flux/v1/worker.grpc.pb.h"
#include "store/rocks_store.h"

namespace flux::bench {
namespace {

void AwaitTermination() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  int number = 0;
  sigwait(&signals, &number);
}

void BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

// Results in, one log entry a batch, tasks out. While one batch is on its way to the disk, the next
// one gathers.
class Rounds final : public server::WorkerStreamSink {
 public:
  Rounds(store::Store* store, uint32_t in_flight, uint32_t payload_bytes)
      : store_(store), in_flight_(in_flight), payload_(payload_bytes, 'x') {
    claim_ = *store_->log().Claim(0);
    lsn_ = claim_.last_lsn;
  }
  void Connect(server::WorkerStreams* streams) { streams_ = streams; }

  void OnOpen(server::StreamId, std::string) override {}
  void OnClosed(server::StreamId) override {}

  bool OnMessage(server::StreamId stream, std::unique_ptr<v1::ConnectRequest> message) override {
    std::lock_guard lock(mutex_);
    if (message->has_hello()) {
      for (uint32_t i = 0; i < in_flight_; ++i) {
        v1::TaskToken token;
        token.set_run_id(std::string(16, 'r'));
        token.set_frame(i);
        next_.push_back(std::move(token));
      }
    }
    for (v1::TaskResult& result : *message->mutable_results()) {
      result.AppendToString(&body_);
      next_.push_back(std::move(*result.mutable_token()));
    }
    stream_ = stream;
    Commit();
    return true;
  }

 private:
  // With the lock held.
  void Commit() {
    if (busy_ || next_.empty()) return;
    busy_ = true;
    std::vector<store::AppendEntry> entries(1);
    entries[0].epoch = claim_.epoch;
    entries[0].lsn = ++lsn_;
    entries[0].bytes = std::exchange(body_, {});
    if (lsn_ % 1024 == 0) (void)store_->log().Truncate(0, claim_.epoch, lsn_ - 512).ok();
    store_->log().Append(std::move(entries), [this, tokens = std::exchange(next_, {})](
                                                 const std::vector<store::AppendResult>&) mutable {
      auto out = MakeOnArena<v1::ConnectResponse>();
      for (v1::TaskToken& token : tokens) {
        v1::Task* task = out->add_tasks();
        token.set_delivery(token.delivery() + 1);
        *task->mutable_token() = token;
        task->set_name("bench.step");
        task->add_inputs()->mutable_payload()->set_data(payload_);
      }
      streams_->Send(stream_, std::move(out));
      std::lock_guard lock(mutex_);
      busy_ = false;
      Commit();
    });
  }

  store::Store* const store_;
  const uint32_t in_flight_;
  const std::string payload_;
  store::ShardClaim claim_;
  server::WorkerStreams* streams_ = nullptr;
  std::mutex mutex_;
  store::Lsn lsn_ = 0;
  bool busy_ = false;
  server::StreamId stream_ = 0;
  std::string body_;
  std::vector<v1::TaskToken> next_;
};

// One write in flight; answers gather behind it.
class Echo final : public grpc::ClientBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  Echo(v1::WorkerService::Stub* stub, Shared* shared) : shared_(shared) {
    stub->async()->Connect(&context_, this);
    v1::WorkerHello* hello = writing_.mutable_hello();
    hello->set_worker_id("echo");
    hello->set_session_id("echo");
    hello->add_tasks("bench.step");
    hello->set_slots(1);
    StartWrite(&writing_);
    StartRead(&reading_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      std::lock_guard lock(mutex_);
      for (v1::Task& task : *reading_.mutable_tasks()) {
        shared_->Step(task.token().frame(), 0);
        v1::TaskResult* result = gathering_.add_results();
        *result->mutable_token() = std::move(*task.mutable_token());
        *result->mutable_value() = std::move(*task.mutable_inputs(0)->mutable_payload());
      }
      Write();
    }
    StartRead(&reading_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return;
    std::lock_guard lock(mutex_);
    busy_ = false;
    Write();
  }
  void Stop() { context_.TryCancel(); }
  void Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return finished_; });
  }
  void OnDone(const grpc::Status&) override {
    std::lock_guard lock(mutex_);
    finished_ = true;
    done_.notify_all();
  }

 private:
  void Write() {
    if (busy_ || gathering_.results_size() == 0) return;
    busy_ = true;
    writing_.Clear();
    writing_.Swap(&gathering_);
    StartWrite(&writing_);
  }

  Shared* const shared_;
  grpc::ClientContext context_;
  v1::ConnectResponse reading_;
  std::mutex mutex_;
  std::condition_variable done_;
  bool finished_ = false;
  bool busy_ = true;
  v1::ConnectRequest gathering_;
  v1::ConnectRequest writing_;
};

}  // namespace

int CeilingServer(const std::string& data, const std::string& port_file, uint32_t in_flight,
                  uint32_t payload_bytes) {
  BlockSignals();
  store::RocksOptions options;
  options.path = data;
  options.shards = 1;
  auto store = store::RocksStore::Open(options);
  if (!store.ok()) {
    std::cerr << store.status() << "\n";
    return 1;
  }
  Rounds rounds(store->get(), in_flight, payload_bytes);
  server::WorkerService service(&rounds);
  rounds.Connect(&service);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.SetMaxReceiveMessageSize(64 << 20);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  std::ofstream(port_file + ".new") << port << "\n";
  std::rename((port_file + ".new").c_str(), port_file.c_str());
  AwaitTermination();
  service.Shutdown(absl::UnavailableError("done"));
  service.WaitUntilIdle(absl::Seconds(2));
  server->Shutdown(std::chrono::system_clock::now());
  store->reset();  // queued appends call back before the rest goes
  return 0;
}

int CeilingWorker(const std::string& address, Shared* shared) {
  BlockSignals();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  auto stub = v1::WorkerService::NewStub(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  Echo echo(stub.get(), shared);
  AwaitTermination();
  echo.Stop();
  echo.Wait();
  return 0;
}

}  // namespace flux::bench
