// Between the SDK's shapes (flux::Payload, flux::Failure) and the wire's. Strings are moved, never
// copied, where the argument is taken by pointer or rvalue.
#ifndef FLUX_CLIENT_SRC_RPC_CONVERT_H_
#define FLUX_CLIENT_SRC_RPC_CONVERT_H_

#include "flux/payload.h"
#include "flux/v1/payload.pb.h"

namespace flux::internal {

// `from` is left without its bytes, in any state otherwise.
Payload TakePayload(v1::Payload* from);
void MovePayload(Payload&& from, v1::Payload* to);
Failure TakeFailure(v1::Failure* from);
void MoveFailure(Failure&& from, v1::Failure* to);

}  // namespace flux::internal

#endif  // FLUX_CLIENT_SRC_RPC_CONVERT_H_
