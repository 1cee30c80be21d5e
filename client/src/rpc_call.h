// One unary call with its retries, as a chain of callbacks on gRPC's threads: no thread of ours
// waits for it.
#ifndef FLUX_CLIENT_SRC_RPC_CALL_H_
#define FLUX_CLIENT_SRC_RPC_CALL_H_

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/src/rpc_channel.h"

namespace flux::internal {

struct CallPolicy {
  absl::Time deadline;  // of the call with all its tries
  absl::Duration try_timeout;
  absl::Duration backoff_initial;
  absl::Duration backoff_max;
  bool once = false;  // not to be repeated: a second time would do more
};

// Retries what is safe to send again, because the call is idempotent, and may succeed: an
// unreachable coordinator, and a try that took too long. Keeps itself alive until `done` has run,
// which it does exactly once, on a thread of gRPC's.
template <typename Request, typename Response>
class RetryingCall : public std::enable_shared_from_this<RetryingCall<Request, Response>> {
 public:
  using Send = std::function<void(grpc::ClientContext*, const Request*, Response*,
                                  std::function<void(grpc::Status)>)>;
  using Done = std::function<void(absl::StatusOr<Response>)>;

  RetryingCall(std::string name, std::string target, std::shared_ptr<const Request> request,
               CallPolicy policy, Send send, Done done)
      : name_(std::move(name)),
        target_(std::move(target)),
        request_(std::move(request)),
        policy_(policy),
        backoff_(policy.backoff_initial, policy.backoff_max),
        send_(std::move(send)),
        done_(std::move(done)),
        begun_(absl::Now()) {}

  void Try() {
    context_ = std::make_unique<grpc::ClientContext>();
    const absl::Time now = absl::Now();
    context_->set_deadline(
        absl::ToChronoTime(std::min(policy_.deadline, now + policy_.try_timeout)));
    response_.Clear();
    send_(
        context_.get(), request_.get(), &response_,
        [self = this->shared_from_this()](grpc::Status status) { self->Ended(std::move(status)); });
  }

 private:
  void Ended(grpc::Status status) {
    if (status.ok()) return Finish(std::move(response_));
    const bool lost = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                      status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
    if (lost && policy_.once) {
      const absl::Status failed = FromGrpc(status, name_, target_);
      return Finish(absl::Status(
          failed.code(), absl::StrCat(failed.message(),
                                      "; it may have been done: look at the execution's history "
                                      "before it is sent again")));
    }
    const bool retriable = lost;
    // The first cause is the better explanation: the last try is often cut short by the deadline.
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE || cause_.ok()) cause_ = status;
    const absl::Time now = absl::Now();
    const absl::Time next = now + backoff_.Next();
    if (retriable && next < policy_.deadline) {
      alarm_.Set(absl::ToChronoTime(next),
                 [self = this->shared_from_this()](bool) { self->Try(); });
      return;
    }
    absl::Status failed = FromGrpc(retriable ? cause_ : status, name_, target_);
    if (retriable && backoff_.tries() > 1) {
      failed = absl::Status(
          failed.code(),
          absl::StrCat(failed.message(), " [", backoff_.tries(), " tries in ",
                       absl::FormatDuration(absl::Trunc(now - begun_, absl::Milliseconds(1))),
                       "]"));
    }
    Finish(std::move(failed));
  }

  void Finish(absl::StatusOr<Response> result) {
    Done done = std::move(done_);
    done(std::move(result));
  }

  const std::string name_;
  const std::string target_;
  const std::shared_ptr<const Request> request_;  // shared with a call that may have to follow
  const CallPolicy policy_;
  Backoff backoff_;
  const Send send_;
  Done done_;
  const absl::Time begun_;
  Response response_;
  grpc::Status cause_;
  std::unique_ptr<grpc::ClientContext> context_;  // one a try
  grpc::Alarm alarm_;
};

}  // namespace flux::internal

#endif  // FLUX_CLIENT_SRC_RPC_CALL_H_
