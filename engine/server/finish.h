// How a gRPC service answers with what the engine or the scheduler says.
#ifndef FLUX_ENGINE_SERVER_FINISH_H_
#define FLUX_ENGINE_SERVER_FINISH_H_

#include <grpcpp/grpcpp.h>

#include "absl/status/statusor.h"
#include "engine/server/to_grpc.h"

namespace flux::server {

// Tells the time by `owner`'s clock if the response has a place for it that is empty: a client
// measures the ages in it by that and not by a clock of its own.
template <typename Owner, typename Response>
void TellTime(const Owner& owner, Response* response) {
  if constexpr (requires { response->set_server_time_ms(0); }) {
    if (response->server_time_ms() == 0) response->set_server_time_ms(owner.WallMs());
  }
}

// A reply that moves the answer into the response and finishes the call. `owner`, whose clock it
// is, must outlive it.
template <typename Owner, typename Response>
auto Finish(const Owner* owner, grpc::ServerUnaryReactor* reactor, Response* response) {
  return [owner, reactor, response](absl::StatusOr<Response> answer) {
    if (answer.ok()) {
      response->Swap(&*answer);
      TellTime(*owner, response);
    }
    reactor->Finish(ToGrpc(answer.status()));
  };
}

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_FINISH_H_
