#include "client/fluxctl/connection.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/fluxctl/text.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(10);
constexpr absl::Duration kRepeatAfterMin = absl::Milliseconds(50);
constexpr absl::Duration kRepeatAfterMax = absl::Seconds(1);

// No connection could be made at all, so the request has not left.
bool IsUnreachable(const grpc::Status& status) {
  const std::string& message = status.error_message();
  return status.error_code() == grpc::StatusCode::UNAVAILABLE &&
         (message.find("failed to connect") != std::string::npos ||
          message.find("DNS resolution failed") != std::string::npos ||
          message.find("Name or service not known") != std::string::npos);
}

// The library's chains of causes end in the one a person can use.
std::string Cause(std::string message) {
  for (const std::string_view mark :
       {std::string_view("last error: "), std::string_view("UNKNOWN: "),
        std::string_view("UNAVAILABLE: "),
        std::string_view("Failed to connect to remote host: ")}) {
    if (const std::size_t at = message.find(mark); at != std::string::npos)
      message.erase(0, at + mark.size());
  }
  return message;
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  // A proxy meant for the web is not on the way to a coordinator.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Despite its name the time that one attempt to connect is given; a refused one is repeated after
  // the backoff.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // The server bounds what it sends; a page with payloads may well pass the library's 4 MiB.
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

std::chrono::system_clock::time_point ToDeadline(absl::Time time) {
  if (time == absl::InfiniteFuture()) return std::chrono::system_clock::time_point::max();
  return absl::ToChronoTime(time);
}

Connection::Connection(std::string address, std::optional<absl::Duration> timeout)
    : address_(std::move(address)),
      deadline_(timeout.has_value() ? absl::Now() + *timeout : absl::InfiniteFuture()),
      channel_(MakeChannel(address_)),
      workflows_(v1::WorkflowService::NewStub(channel_)),
      admin_(v1::AdminService::NewStub(channel_)),
      schedules_(v1::ScheduleService::NewStub(channel_)),
      bulks_(v1::BulkService::NewStub(channel_)) {}

bool Connection::IsLostConnection(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::CANCELLED;
}

absl::Status Connection::ToStatus(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  if (IsUnreachable(status)) {
    return WithHint(absl::UnavailableError(absl::StrCat("cannot reach fluxd at ", address_, ": ",
                                                        Cause(status.error_message()))),
                    "start one with 'fluxd --data DIR' (or 'fluxd dev' for a trial), or name a "
                    "running one with "
                    "--address HOST:PORT or FLUX_ADDRESS");
  }
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return WithHint(
        absl::DeadlineExceededError(absl::StrCat("no answer from fluxd at ", address_, " in time")),
        "--timeout gives it longer");
  }
  if (status.error_code() == grpc::StatusCode::CANCELLED) {
    return absl::UnavailableError(
        absl::StrCat("fluxd at ", address_, " broke off the call: ", status.error_message()));
  }
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return WithHint(
        absl::UnimplementedError(absl::StrCat(
            "the server at ", address_, " does not know this call: ", status.error_message())),
        "is it a fluxd of the same version? 'fluxctl version' and 'fluxctl admin info' tell");
  }
  const absl::Status answer(static_cast<absl::StatusCode>(status.error_code()),
                            status.error_message());
  // Of what an execution lacks the server speaks with the execution's name in front.
  if (absl::IsNotFound(answer) && (absl::StartsWith(answer.message(), "no execution ") ||
                                   absl::StartsWith(answer.message(), "no run "))) {
    return WithHint(answer, "'fluxctl workflow list' shows what there is");
  }
  return answer;
}

absl::Status Connection::Once(const std::function<grpc::Status(grpc::ClientContext*)>& call) {
  grpc::ClientContext context;
  context.set_deadline(
      ToDeadline(deadline_ == absl::InfiniteFuture() ? absl::Now() + kCallTimeout : deadline_));
  const grpc::Status status = call(&context);
  const bool lost = (IsLostConnection(status) && !IsUnreachable(status)) ||
                    status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  if (!lost) return ToStatus(status);
  return WithHint(
      ToStatus(status),
      "it may have been done: 'fluxctl workflow history' tells, before it is sent again");
}

absl::Status Connection::Repeat(const std::function<grpc::Status(grpc::ClientContext*)>& call,
                                absl::Duration extra) {
  const absl::Time deadline =
      deadline_ == absl::InfiniteFuture() ? absl::Now() + kCallTimeout + extra : deadline_;
  absl::Duration pause = kRepeatAfterMin;
  while (true) {
    grpc::ClientContext context;
    context.set_deadline(ToDeadline(deadline));
    context.set_wait_for_ready(reached_);
    const grpc::Status status = call(&context);
    const bool unavailable = status.error_code() == grpc::StatusCode::UNAVAILABLE;
    if (!unavailable && status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) reached_ = true;
    if (unavailable && !IsUnreachable(status)) reached_ = true;
    if (!unavailable || !reached_ || absl::Now() + pause >= deadline) return ToStatus(status);
    absl::SleepFor(pause);
    pause = std::min(pause * 2, kRepeatAfterMax);
  }
}

}  // namespace flux::ctl
