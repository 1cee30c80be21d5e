// Statuses on their way to a peer.
#ifndef FLUX_ENGINE_SERVER_TO_GRPC_H_
#define FLUX_ENGINE_SERVER_TO_GRPC_H_

#include <grpcpp/support/status.h>

#include <cstddef>

#include "absl/status/status.h"

namespace flux::server {

// Of a message. A peer takes 8 KiB of metadata, where a byte that is not ASCII needs three; a
// longer message would turn the status into RESOURCE_EXHAUSTED, without a word of its own.
inline constexpr size_t kMessageBytesMax = 2 * 1024;

// The same code and the message's begin, cut at a character.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_TO_GRPC_H_
