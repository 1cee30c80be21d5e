// A scripted coordinator: a real gRPC server in this process that records what a worker sends and
// says what a test tells it to. Thread-safe. Nothing here sleeps: Await blocks on what arrives and
// gives up, loudly, after kPatience.
#ifndef FLUX_TESTS_WORKER_FAKE_COORDINATOR_H_
#define FLUX_TESTS_WORKER_FAKE_COORDINATOR_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "flux/v1/worker.grpc.pb.h"

namespace flux::testing {

inline constexpr std::chrono::seconds kPatience{100};

struct CoordinatorScript {
  bool welcome = true;  // answer a hello
  bool ack = true;      // answer every result with RECORDED
  int64_t ping_interval_ms = 0;
  uint64_t payload_bytes_max = 4 << 20;
  grpc::Status refuse = {};  // not OK: end every stream with it
  // Called with every message, before it is recorded, under the lock; returns what to answer.
  std::function<void(const v1::ConnectRequest&, v1::ConnectResponse*)> react = {};
};

// What the worker has sent, over all streams.
struct CoordinatorSeen {
  std::vector<v1::WorkerHello> hellos;
  std::vector<v1::ConnectRequest> first;  // whole first messages
  std::vector<v1::TaskResult> results;
  std::vector<v1::Heartbeat> heartbeats;
  std::vector<v1::TaskToken> released;
  std::vector<uint64_t> pongs;
  uint64_t credit = 0;  // on this stream
  uint64_t messages = 0;
  int draining = 0;
  int streams = 0;  // begun
  int streams_open = 0;
  bool half_closed = false;  // the worker ended the newest stream in order
};

class FakeCoordinator final : public v1::WorkerService::Service {
 public:
  using Script = CoordinatorScript;
  using Seen = CoordinatorSeen;

  explicit FakeCoordinator(Script script = {}, int port = 0) : script_(std::move(script)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.SetMaxReceiveMessageSize(-1);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeCoordinator() override { Shutdown(); }

  void Shutdown() {
    if (server_ == nullptr) return;
    Break();
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    server_ = nullptr;
  }

  int port() const { return port_; }
  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }

  template <typename Condition>
  bool Await(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return condition(seen_); });
  }
  Seen seen() {
    std::lock_guard lock(mutex_);
    return seen_;
  }
  void Change(std::function<void(Script*)> change) {
    std::lock_guard lock(mutex_);
    change(&script_);
  }

  bool Send(const v1::ConnectResponse& message) {
    std::lock_guard lock(mutex_);
    return stream_ != nullptr && stream_->Write(message);
  }
  bool SendTasks(const std::vector<v1::Task>& tasks) {
    v1::ConnectResponse message;
    for (const v1::Task& task : tasks) *message.add_tasks() = task;
    return Send(message);
  }
  bool SendCancel(const v1::TaskToken& token, const std::string& reason) {
    v1::ConnectResponse message;
    *message.add_cancels()->mutable_token() = token;
    message.mutable_cancels(0)->set_reason(reason);
    return Send(message);
  }
  bool SendAck(const v1::TaskToken& token, v1::AckStatus status = v1::ACK_STATUS_RECORDED) {
    v1::ConnectResponse message;
    *message.add_acks()->mutable_token() = token;
    message.mutable_acks(0)->set_status(status);
    return Send(message);
  }
  // Messages are taken in order, so the worker has seen all that was sent before once it has
  // answered this ping.
  bool Sync() {
    uint64_t ping = 0;
    {
      std::lock_guard lock(mutex_);
      ping = ++last_ping_;
    }
    v1::ConnectResponse message;
    message.set_ping(ping);
    return Send(message) && Await([ping](const Seen& seen) {
             return !seen.pongs.empty() && seen.pongs.back() == ping;
           });
  }
  // Breaks the stream as a lost connection does.
  void Break() {
    std::lock_guard lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  grpc::Status Connect(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::ConnectResponse, v1::ConnectRequest>* stream) override {
    {
      std::lock_guard lock(mutex_);
      if (!script_.refuse.ok()) return script_.refuse;
      stream_ = stream;
      context_ = context;
      ++seen_.streams;
      ++seen_.streams_open;
      seen_.credit = 0;
      seen_.half_closed = false;
    }
    v1::ConnectRequest request;
    while (stream->Read(&request)) {
      std::lock_guard lock(mutex_);
      v1::ConnectResponse answer;
      bool say = false;
      if (request.has_hello() && script_.welcome) {
        answer.mutable_welcome()->set_ping_interval_ms(script_.ping_interval_ms);
        answer.mutable_welcome()->set_session_grace_ms(10'000);
        answer.mutable_welcome()->set_payload_bytes_max(script_.payload_bytes_max);
        answer.mutable_welcome()->set_incarnation(1);
        say = true;
      }
      if (script_.ack) {
        for (const v1::TaskResult& result : request.results()) {
          v1::ResultAck* ack = answer.add_acks();
          *ack->mutable_token() = result.token();
          ack->set_status(v1::ACK_STATUS_RECORDED);
          say = true;
        }
      }
      if (script_.react) {
        script_.react(request, &answer);
        say = say || answer.ByteSizeLong() > 0;
      }
      Record(request);
      if (say) stream->Write(answer);
      changed_.notify_all();
    }
    std::lock_guard lock(mutex_);
    --seen_.streams_open;
    seen_.half_closed = !context->IsCancelled();
    stream_ = nullptr;
    context_ = nullptr;
    changed_.notify_all();
    return grpc::Status::OK;
  }

  void Record(v1::ConnectRequest& request) {
    ++seen_.messages;
    if (request.has_hello()) {
      seen_.hellos.push_back(request.hello());
      seen_.first.push_back(request);
    }
    seen_.credit += request.credit();
    for (auto& result : *request.mutable_results()) seen_.results.push_back(std::move(result));
    for (auto& beat : *request.mutable_heartbeats()) seen_.heartbeats.push_back(std::move(beat));
    for (auto& token : *request.mutable_released()) seen_.released.push_back(std::move(token));
    if (request.draining()) ++seen_.draining;
    if (request.pong() != 0) seen_.pongs.push_back(request.pong());
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Script script_;
  Seen seen_;
  uint64_t last_ping_ = 0;
  grpc::ServerReaderWriter<v1::ConnectResponse, v1::ConnectRequest>* stream_ = nullptr;
  grpc::ServerContext* context_ = nullptr;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

inline v1::TaskToken Token(uint64_t delivery, uint32_t step = 0) {
  v1::TaskToken token;
  token.set_incarnation(1);
  token.set_run_id(std::string("\x01\x90\xab\xcd\0\0\x70\0\x80\0\0\0\0\0\0\x01", 16));
  token.set_frame(1);
  token.set_step(step);
  token.set_delivery(delivery);
  token.set_shard(3);
  return token;
}

// A task with one JSON argument.
inline v1::Task MakeTask(uint64_t delivery, const std::string& name, const std::string& json) {
  v1::Task task;
  *task.mutable_token() = Token(delivery);
  task.set_name(name);
  task.set_attempt(1);
  task.set_step("step");
  task.set_workflow_id("wf");
  task.set_workflow("graph");
  task.set_start_to_close_ms(60'000);
  v1::Payload* payload = task.add_inputs()->mutable_payload();
  payload->set_encoding(v1::ENCODING_JSON);
  payload->set_data(json);
  return task;
}

}  // namespace flux::testing

#endif  // FLUX_TESTS_WORKER_FAKE_COORDINATOR_H_
