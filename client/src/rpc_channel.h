// How the SDK reaches a coordinator: one place for addresses, channels, identities, backoff and the
// words of an error.
#ifndef FLUX_CLIENT_SRC_RPC_CHANNEL_H_
#define FLUX_CLIENT_SRC_RPC_CHANNEL_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace flux::internal {

// InvalidArgument unless `target` is host:port, or names a gRPC scheme (unix:, dns:, ipv4:, ipv6:,
// …).
absl::Status CheckTarget(std::string_view target);

// A plaintext channel of its own (no connection shared with other channels of the process, no HTTP
// proxy), that tries again within two seconds after its peer came back. Receives messages of any
// size: the peer is the coordinator.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target);

// "host:pid", for people.
std::string DefaultIdentity();

// 128 random bits as 32 hex digits.
std::string RandomId();

// gRPC's codes are abseil's. Unavailable says that `target` cannot be reached and what to look at;
// any other code keeps the coordinator's words, after the call's name and its address.
absl::Status FromGrpc(const grpc::Status& status, std::string_view call, std::string_view target);

// Gaps that double from `initial` to `max`, each shortened at random by up to half so that many
// clients do not return at one instant. Not thread-safe.
class Backoff {
 public:
  Backoff(absl::Duration initial, absl::Duration max) : initial_(initial), max_(max) {}
  absl::Duration Next();
  void Reset() { tries_ = 0; }
  int tries() const { return tries_; }

 private:
  absl::Duration initial_;
  absl::Duration max_;
  int tries_ = 0;
};

}  // namespace flux::internal

#endif  // FLUX_CLIENT_SRC_RPC_CHANNEL_H_
