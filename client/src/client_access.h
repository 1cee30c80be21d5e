// What other parts of the SDK need of a client: its connection and its settings.
#ifndef FLUX_CLIENT_SRC_CLIENT_ACCESS_H_
#define FLUX_CLIENT_SRC_CLIENT_ACCESS_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "flux/client.h"

namespace flux::internal {

struct ClientConnection {
  std::string target;
  ClientOptions options;                   // with what was left empty filled in
  std::shared_ptr<grpc::Channel> channel;  // gRPC's own shape
};

class ClientAccess {
 public:
  static ClientConnection Of(const Client& client);
};

}  // namespace flux::internal

#endif  // FLUX_CLIENT_SRC_CLIENT_ACCESS_H_
