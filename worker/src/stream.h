// One connection of a session: gRPC's reactor, reduced to calls into the Session.
#ifndef FLUX_WORKER_SRC_STREAM_H_
#define FLUX_WORKER_SRC_STREAM_H_

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "proto/arena_message.h"
#include "worker/src/session.h"

namespace flux::internal {

// Owned by itself from Open until gRPC is done with it, and by the Session while it is the current
// one. A hold keeps gRPC from ending it while the Session may still write: the Session calls
// Release once it will write no more.
class Session::Stream : public grpc::ClientBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  // Shared: the session must outlive the callbacks of its streams.
  Stream(std::shared_ptr<Session> session, v1::WorkerService::Stub* stub)
      : session_(std::move(session)), stub_(stub) {}

  // Sends `out`, the hello, and starts reading.
  void Open(std::shared_ptr<Stream> self) {
    self_ = std::move(self);
    stub_->async()->Connect(&context_, this);
    AddHold();
    StartWrite(&out);
    StartRead(Reading());
    StartCall();
  }
  void Write() { StartWrite(&out); }
  void HalfClose() { StartWritesDone(); }
  void Cancel() { context_.TryCancel(); }
  void Release() { RemoveHold(); }

  // Guarded by Session::mutex_; `out` and `written` belong to the write while `writing`.
  v1::ConnectRequest out;
  std::vector<HeldTask*> written;
  bool writing = false;
  bool read_ended = false;
  bool welcomed = false;
  bool half_closed = false;
  const char* abandoned = nullptr;  // why the session gave it up
  Nanos began = 0;
  Nanos opened =
      0;  // as began, less the time this process stood still; anew when it is half-closed
  Nanos last_read = 0;

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return session_->OnReadEnded(this);
    Inbound read;
    {
      const std::lock_guard lock(in_mutex_);
      read = std::exchange(in_, MakeOnArena<v1::ConnectResponse>());
    }
    session_->OnMessage(this, read);
    StartRead(Reading());
  }
  v1::ConnectResponse* Reading() {
    const std::lock_guard lock(in_mutex_);
    return in_.get();
  }
  void OnWriteDone(bool) override { session_->OnWriteDone(this); }
  void OnWritesDoneDone(bool) override { session_->OnWriteDone(this); }
  void OnDone(const grpc::Status& status) override {
    session_->OnStreamDone(this, status);
    std::shared_ptr<Stream> last = std::move(self_);
  }

  std::shared_ptr<Session> session_;
  v1::WorkerService::Stub* stub_;
  grpc::ClientContext context_;
  // gRPC has one reaction follow the other, on whatever thread; the lock says so where a sanitizer
  // can see it.
  std::mutex in_mutex_;
  Inbound in_ = MakeOnArena<v1::ConnectResponse>();
  std::shared_ptr<Stream> self_;
};

}  // namespace flux::internal

#endif  // FLUX_WORKER_SRC_STREAM_H_
