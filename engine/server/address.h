// The address the coordinator listens on.
#ifndef FLUX_ENGINE_SERVER_ADDRESS_H_
#define FLUX_ENGINE_SERVER_ADDRESS_H_

#include <string>

#include "absl/status/status.h"

namespace flux::server {

// InvalidArgument: not HOST:PORT, or no such host. What gRPC knows besides (unix:PATH) is left to
// it.
absl::Status CheckListenAddress(const std::string& address);

// Why nothing can listen there, found by trying: Unavailable.
absl::Status ListenFailure(const std::string& address);

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_ADDRESS_H_
