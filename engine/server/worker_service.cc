#include "engine/server/worker_service.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/server/to_grpc.h"
#include "proto/bridge.h"

namespace flux::server {
namespace {

using Reactor = grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>;

template <typename T>
void Append(google::protobuf::RepeatedPtrField<T>* to,
            google::protobuf::RepeatedPtrField<T>* from) {
  if (to->empty()) {
    to->Swap(from);
    return;
  }
  for (T& element : *from) to->Add(std::move(element));
  from->Clear();
}

void Merge(v1::ConnectResponse* to, ArenaPtr<v1::ConnectResponse> from) {
  Append(to->mutable_tasks(), from->mutable_tasks());
  Append(to->mutable_acks(), from->mutable_acks());
  Append(to->mutable_cancels(), from->mutable_cancels());
  to->MergeFrom(*from);  // what is not repeated: welcome, the newest ping, goodbye
}

// A stream that is turned away at the door.
class Refused final : public Reactor {
 public:
  explicit Refused(const absl::Status& why) { Finish(ToGrpc(why)); }
  void OnDone() override { delete this; }
};

}  // namespace

struct WorkerService::Registry {
  Registry(WorkerStreamSink* the_sink, WorkerServiceOptions the_options)
      : sink(the_sink), options(the_options) {}

  std::shared_ptr<Stream> Find(StreamId id) {
    const std::lock_guard lock(mutex);
    const auto it = streams.find(id);
    return it == streams.end() ? nullptr : it->second;
  }
  std::vector<std::shared_ptr<Stream>> All() {
    const std::lock_guard lock(mutex);
    std::vector<std::shared_ptr<Stream>> all;
    all.reserve(streams.size());
    for (const auto& [id, stream] : streams) all.push_back(stream);
    return all;
  }

  WorkerStreamSink* const sink;
  const WorkerServiceOptions options;
  std::mutex mutex;              // guards what follows
  std::condition_variable idle;  // no stream is left
  StreamId next_id = 1;
  absl::Status stopped;
  // Shared: a sender holds the stream it found while gRPC may be done with it.
  absl::flat_hash_map<StreamId, std::shared_ptr<Stream>> streams;
};

// One Connect call. gRPC runs one read, one write and OnCancel at a time beside each other;
// `mutex_` orders them.
//
// Finish is called exactly once (finished_), by whoever first has the reason to and finds nothing
// left to write; OnDone then comes when no other reaction is running, and takes the stream out of
// the registry.
class WorkerService::Stream final : public Reactor, public std::enable_shared_from_this<Stream> {
 public:
  Stream(std::shared_ptr<Registry> registry, StreamId id, grpc::CallbackServerContext* context)
      : registry_(std::move(registry)), id_(id), context_(context) {}

  void Begin() {
    registry_->sink->OnOpen(id_, context_->peer());
    {
      const std::lock_guard lock(mutex_);
      SetAlarm(&hello_alarm_, registry_->options.hello_timeout, &Stream::HelloTimeout);
    }
    ReadNext();
  }

  void Send(ArenaPtr<v1::ConnectResponse> message) {
    const std::lock_guard lock(mutex_);
    if (closing_ || finished_) return;
    if (writing_ == nullptr) {
      writing_ = std::move(message);
      StartWrite(writing_.get());
      return;
    }
    const size_t bytes = message->ByteSizeLong();
    const WorkerServiceOptions& options = registry_->options;
    if (queued_bytes_ + bytes > options.outgoing_bytes_max) {
      queue_.clear();
      queued_bytes_ = 0;
      closing_ = true;
      why_ = absl::ResourceExhaustedError(
          absl::StrCat("worker at ", context_->peer(), " does not read: over ",
                       options.outgoing_bytes_max, " bytes wait for it; connect again"));
      // Not after the write in flight, which may never end: gRPC sends the status behind it.
      FinishLocked(why_);
      return;
    }
    if (!queue_.empty() && queue_.back().bytes + bytes <= options.merged_message_bytes_max) {
      Merge(queue_.back().message.get(), std::move(message));
      queue_.back().bytes += bytes;
    } else {
      queue_.push_back({std::move(message), bytes});
    }
    queued_bytes_ += bytes;
  }

  void Close(const absl::Status& why) {
    const std::lock_guard lock(mutex_);
    CloseLocked(why);
  }

  void Resume() {
    {
      const std::lock_guard lock(mutex_);
      if (reading_ == Reading::kDelivering) reading_ = Reading::kResumed;
      if (reading_ != Reading::kPaused) return;
    }
    ReadNext();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {  // the peer has ended its side, is gone, or sent what is no message
      const std::lock_guard lock(mutex_);
      CloseLocked(said_hello_ ? absl::OkStatus()
                              : absl::InvalidArgumentError(
                                    "the stream ended before a hello that can be read: a worker's "
                                    "first message is a flux.v1.ConnectRequest with one"));
      return;
    }
    std::unique_ptr<v1::ConnectRequest> message;
    {
      const std::lock_guard lock(mutex_);
      message = std::move(read_);
      if (closing_ || finished_) return;
      const bool is_hello = message->has_hello();
      if (is_hello == said_hello_) {
        CloseLocked(absl::InvalidArgumentError(
            is_hello ? "a worker's stream carries one hello, in its first message; this is a second"
                     : "a worker's stream begins with a hello; its first message has none"));
        return;
      }
      if (is_hello) hello_alarm_.Cancel();
      said_hello_ = true;
      reading_ = Reading::kDelivering;
    }
    const bool room = registry_->sink->OnMessage(id_, std::move(message));
    if (!room) {
      const std::lock_guard lock(mutex_);
      if (reading_ == Reading::kDelivering) {
        reading_ = Reading::kPaused;
        return;
      }
    }
    ReadNext();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_.reset();
    if (finished_) return;
    if (!ok) {
      FinishLocked(absl::CancelledError("the worker's stream broke"));
      return;
    }
    if (!queue_.empty()) {
      writing_ = std::move(queue_.front().message);
      queued_bytes_ -= queue_.front().bytes;
      queue_.pop_front();
      StartWrite(writing_.get());
    } else if (closing_) {
      FinishLocked(why_);
    }
  }

  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    FinishLocked(absl::CancelledError("the worker's stream broke"));
  }

  void OnDone() override {
    // Keeps the stream until the end of this function whatever the registry does.
    const std::shared_ptr<Stream> self = shared_from_this();
    {
      const std::lock_guard lock(mutex_);
      context_ = nullptr;
      hello_alarm_.Cancel();
      linger_alarm_.Cancel();
    }
    const std::shared_ptr<Registry> registry = registry_;
    registry->sink->OnClosed(id_);
    const std::lock_guard lock(registry->mutex);
    registry->streams.erase(id_);
    if (registry->streams.empty()) registry->idle.notify_all();
  }

 private:
  enum class Reading { kReading, kDelivering, kResumed, kPaused };
  struct Queued {
    ArenaPtr<v1::ConnectResponse> message;
    size_t bytes = 0;
  };

  void ReadNext() {
    const std::lock_guard lock(mutex_);
    if (closing_ || finished_) return;
    reading_ = Reading::kReading;
    read_ = std::make_unique<v1::ConnectRequest>();
    StartRead(read_.get());
  }

  void CloseLocked(const absl::Status& why) {
    if (closing_ || finished_) return;
    closing_ = true;
    why_ = why;
    if (writing_ == nullptr) {
      FinishLocked(why_);
    } else {
      Linger();
    }
  }

  void FinishLocked(const absl::Status& why) {
    if (finished_) return;
    finished_ = true;
    Linger();
    Finish(ToGrpc(why));
  }

  // A peer that reads nothing reads no status either: it is cut off in the end.
  void Linger() {
    if (lingering_) return;
    lingering_ = true;
    SetAlarm(&linger_alarm_, registry_->options.linger, &Stream::LingerTimeout);
  }

  void SetAlarm(grpc::Alarm* alarm, absl::Duration after, void (Stream::*timeout)()) {
    // Weak: the alarm keeps its function until it is destroyed, which is with the stream.
    alarm->Set(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(after),
               [weak = weak_from_this(), timeout](bool fired) {
                 if (!fired) return;
                 if (const std::shared_ptr<Stream> self = weak.lock()) ((*self).*timeout)();
               });
  }

  void HelloTimeout() {
    const std::lock_guard lock(mutex_);
    if (said_hello_) return;
    CloseLocked(absl::DeadlineExceededError(
        absl::StrCat("no hello came within ",
                     absl::FormatDuration(registry_->options.hello_timeout), " of connecting")));
  }

  void LingerTimeout() {
    const std::lock_guard lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }

  const std::shared_ptr<Registry> registry_;
  const StreamId id_;

  std::mutex mutex_;                          // guards what follows
  grpc::CallbackServerContext* context_;      // null once gRPC is done with it
  std::unique_ptr<v1::ConnectRequest> read_;  // of the read in flight
  Reading reading_ = Reading::kReading;
  bool said_hello_ = false;
  bool closing_ = false;
  bool finished_ = false;
  bool lingering_ = false;
  absl::Status why_;
  ArenaPtr<v1::ConnectResponse> writing_;
  std::deque<Queued> queue_;
  size_t queued_bytes_ = 0;
  grpc::Alarm hello_alarm_;
  grpc::Alarm linger_alarm_;
};

WorkerService::WorkerService(WorkerStreamSink* sink, WorkerServiceOptions options)
    : registry_(std::make_shared<Registry>(sink, options)) {}

WorkerService::~WorkerService() {
  Shutdown(absl::UnavailableError("the coordinator is stopping; connect again"));
  WaitUntilIdle(absl::InfiniteDuration());
}

Reactor* WorkerService::Connect(grpc::CallbackServerContext* context) {
  std::shared_ptr<Stream> stream;
  {
    const std::lock_guard lock(registry_->mutex);
    if (!registry_->stopped.ok()) return new Refused(registry_->stopped);
    if (registry_->streams.size() >= registry_->options.streams_max) {
      return new Refused(absl::ResourceExhaustedError(absl::StrCat(
          "the coordinator has its limit of ", registry_->options.streams_max, " streams")));
    }
    const StreamId id = registry_->next_id++;
    stream = std::make_shared<Stream>(registry_, id, context);
    registry_->streams.emplace(id, stream);
  }
  // gRPC uses it until OnDone, and the registry keeps it as long.
  stream->Begin();
  return stream.get();
}

void WorkerService::Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) {
  if (const std::shared_ptr<Stream> found = registry_->Find(stream)) {
    found->Send(std::move(message));
  }
}

void WorkerService::Close(StreamId stream, absl::Status why) {
  if (const std::shared_ptr<Stream> found = registry_->Find(stream)) found->Close(why);
}

void WorkerService::Resume(StreamId stream) {
  if (const std::shared_ptr<Stream> found = registry_->Find(stream)) found->Resume();
}

void WorkerService::ResumeAll() {
  for (const std::shared_ptr<Stream>& stream : registry_->All()) stream->Resume();
}

void WorkerService::Shutdown(absl::Status why) {
  {
    const std::lock_guard lock(registry_->mutex);
    if (!registry_->stopped.ok()) return;
    registry_->stopped = why.ok() ? absl::UnavailableError("the coordinator is stopping") : why;
  }
  for (const std::shared_ptr<Stream>& stream : registry_->All()) stream->Close(why);
}

bool WorkerService::WaitUntilIdle(absl::Duration timeout) {
  const auto idle = [this] { return registry_->streams.empty(); };
  std::unique_lock lock(registry_->mutex);
  if (timeout == absl::InfiniteDuration()) {
    registry_->idle.wait(lock, idle);
    return true;
  }
  return registry_->idle.wait_for(lock, absl::ToChronoNanoseconds(timeout), idle);
}

size_t WorkerService::streams() const {
  const std::lock_guard lock(registry_->mutex);
  return registry_->streams.size();
}

}  // namespace flux::server
