#include "engine/server/to_grpc.h"

#include "engine/core/json_value.h"
#include "proto/bridge.h"

namespace flux::server {

grpc::Status ToGrpc(const absl::Status& status) {
  // The codes of both are the same by definition.
  return {static_cast<grpc::StatusCode>(status.code()),
          engine::Excerpt(Message(status), kMessageBytesMax)};
}

}  // namespace flux::server
