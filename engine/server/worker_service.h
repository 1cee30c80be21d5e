// The workers' side of the network: WorkerService.Connect over gRPC, reduced to streams of
// messages.
//
//   worker ──ConnectRequest──► WorkerService ──OnMessage──► WorkerStreamSink (the loop's inbox)
//   worker ◄─ConnectResponse── WorkerService ◄────Send───── the loop, once what it rests on is
//   durable
//
// Sends never block: a stream has one write in flight, and what is sent meanwhile is merged into
// one message (a few, if large), so that a slower peer gets larger batches. A peer that does not
// read at all is closed at a limit.
#ifndef FLUX_ENGINE_SERVER_WORKER_SERVICE_H_
#define FLUX_ENGINE_SERVER_WORKER_SERVICE_H_

#include <grpcpp/server_context.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "flux/v1/worker.grpc.pb.h"
#include "proto/arena_message.h"

namespace flux::server {

// One connection of a worker; never reused within a process. The same as engine::StreamId.
using StreamId = uint64_t;

// Takes what arrives. Called on gRPC's threads, for one stream by one thread at a time and in
// order: OnOpen, OnMessage any number of times (the first one has a hello, no later one does),
// OnClosed. Must not block, and must outlive the service.
class WorkerStreamSink {
 public:
  virtual ~WorkerStreamSink() = default;
  virtual void OnOpen(StreamId stream, std::string peer) = 0;
  // The message is taken in any case. False: the inbox is full, nothing more is read from this
  // stream until WorkerStreams::Resume; gRPC's flow control then holds the worker back.
  virtual bool OnMessage(StreamId stream, std::unique_ptr<v1::ConnectRequest> message) = 0;
  // Nothing sent from now on arrives. Called once a stream, whoever ended it.
  virtual void OnClosed(StreamId stream) = 0;
};

// Sends to streams. Thread-safe; never blocks. A stream that is not there (any more) is no error:
// its worker is told everything again after its next hello.
class WorkerStreams {
 public:
  virtual ~WorkerStreams() = default;
  virtual void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) = 0;
  // Ends the stream with this status after what was sent before. A peer that does not read it is
  // cut off after WorkerServiceOptions::linger.
  virtual void Close(StreamId stream, absl::Status why) = 0;
  // Reads on from a stream (from every one) whose sink answered "full".
  virtual void Resume(StreamId stream) = 0;
  virtual void ResumeAll() = 0;
};

struct WorkerServiceOptions {
  size_t outgoing_bytes_max = 96 * 1024 * 1024;   // of a stream, behind the write in flight
  size_t merged_message_bytes_max = 1024 * 1024;  // messages are merged up to this size
  size_t streams_max = 20'000;
  absl::Duration hello_timeout = absl::Seconds(10);  // for a stream's first message
  absl::Duration linger = absl::Seconds(10);
};

// Lifecycle: registered with a grpc::ServerBuilder; Shutdown, then the server's own Shutdown, then
// destruction, which waits for the streams still open. The size of one request is limited by
// ServerBuilder::SetMaxReceiveMessageSize (ResourceExhausted). Thread-safe.
//
// What a peer does wrong ends its stream: InvalidArgument (no hello first, or a second one),
// DeadlineExceeded (no hello in time), ResourceExhausted (does not read, too many streams),
// Unavailable (shutting down).
class WorkerService final : public v1::WorkerService::CallbackService, public WorkerStreams {
 public:
  explicit WorkerService(WorkerStreamSink* sink, WorkerServiceOptions options = {});
  ~WorkerService() override;

  grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext* context) override;

  void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) override;
  void Close(StreamId stream, absl::Status why) override;
  void Resume(StreamId stream) override;
  void ResumeAll() override;

  // Refuses new streams and ends those there are with `why` after what was sent. Does not wait.
  void Shutdown(absl::Status why);
  // Waits until no stream is open. False: some still are after `timeout`.
  bool WaitUntilIdle(absl::Duration timeout);
  size_t streams() const;

 private:
  class Stream;
  struct Registry;
  const std::shared_ptr<Registry> registry_;  // shared with the streams
};

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_WORKER_SERVICE_H_
