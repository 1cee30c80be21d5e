#include "client/src/rpc_channel.h"

#include <grpcpp/generic/generic_stub.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <random>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

// Short, so that a coordinator that came back is found within a worker's session grace.
constexpr int kReconnectFirstMs = 100;
constexpr int kReconnectMaxMs = 2'000;

constexpr int kBackoffDoublingsMax = 20;

// gRPC runs callbacks on threads that all channels share and that end with the last channel. Ending
// them joins them, so that must never happen on one of them; but a ClientContext holds its channel,
// and is destroyed in callbacks. One call on a channel that is never destroyed, cancelled before it
// begins, keeps the threads for the life of the process.
void KeepCallbackThreads() {
  struct Keeper {
    std::shared_ptr<grpc::Channel> channel =
        grpc::CreateChannel("ipv4:127.0.0.1:1", grpc::InsecureChannelCredentials());
    grpc::GenericStub stub{channel};
    grpc::ClientContext context;
    grpc::Slice nothing;
    grpc::ByteBuffer request{&nothing, 1};
    grpc::ByteBuffer response;
  };
  // `used`: a pointer that nobody reads would be optimised away, and what it keeps be called a
  // leak.
  [[gnu::used]] static Keeper* const keeper = [] {
    auto* made = new Keeper;
    made->context.TryCancel();
    made->stub.UnaryCall(&made->context, "/flux.v1.Nothing/Nothing", {}, &made->request,
                         &made->response, [](const grpc::Status&) {});
    return made;
  }();
}

uint64_t Random64() {
  thread_local std::random_device device;
  return uint64_t{device()} << 32 | device();
}

}  // namespace

absl::Status CheckTarget(std::string_view target) {
  constexpr char kWayOut[] = "write host:port, e.g. 127.0.0.1:4510";
  if (target.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the coordinator's address is empty: ", kWayOut));
  }
  for (std::string_view scheme : {"unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "vsock:"}) {
    if (target.starts_with(scheme)) return absl::OkStatus();
  }
  const size_t colon = target.rfind(':');
  const bool has_host = colon != std::string_view::npos && colon > 0;
  uint64_t port = 0;
  bool digits = has_host && colon + 1 < target.size() && target.size() - colon <= 6;
  for (size_t i = colon + 1; digits && i < target.size(); ++i) {
    digits = target[i] >= '0' && target[i] <= '9';
    port = port * 10 + static_cast<uint64_t>(target[i] - '0');
  }
  if (!digits || port == 0 || port > 65'535) {
    return absl::InvalidArgumentError(absl::StrCat("the coordinator's address '", ToAbsl(target),
                                                   "' has no valid host and port: ", kWayOut));
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target) {
  KeepCallbackThreads();
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectFirstMs);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectMaxMs);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMaxMs);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // The SDK retries by itself, with one rule for all calls.
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  args.SetMaxReceiveMessageSize(-1);
  args.SetMaxSendMessageSize(-1);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), args);
}

std::string DefaultIdentity() {
  char host[256] = {};
  if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  return absl::StrCat(host[0] != '\0' ? host : "unknown-host", ":", getpid());
}

std::string RandomId() {
  return absl::StrCat(absl::Hex(Random64(), absl::kZeroPad16),
                      absl::Hex(Random64(), absl::kZeroPad16));
}

absl::Status FromGrpc(const grpc::Status& status, std::string_view call, std::string_view target) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  std::string message;
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      message = absl::StrCat("cannot reach the coordinator at ", ToAbsl(target), " (", ToAbsl(call),
                             "): ", status.error_message(),
                             "; is fluxd running there, and is the address right?");
      break;
    case grpc::StatusCode::UNIMPLEMENTED:
      message = absl::StrCat("the server at ", ToAbsl(target), " does not offer ", ToAbsl(call),
                             ": it is no Flux coordinator, or an older one (",
                             status.error_message(), ")");
      break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      message = absl::StrCat("the coordinator at ", ToAbsl(target), " did not answer ",
                             ToAbsl(call), " in time: ", status.error_message());
      break;
    default:
      message = absl::StrCat(status.error_message(), " (", ToAbsl(call), ", coordinator at ",
                             ToAbsl(target), ")");
  }
  return absl::Status(code, message);
}

absl::Duration Backoff::Next() {
  const int doublings = std::min(tries_++, kBackoffDoublingsMax);
  const absl::Duration gap = std::min(max_, initial_ * (int64_t{1} << doublings));
  const double share = 1.0 - 0.5 * static_cast<double>(Random64() >> 11) * 0x1p-53;
  return gap * share;
}

}  // namespace flux::internal
