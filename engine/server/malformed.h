// Says what is wrong with a request that gRPC cannot decode. By itself gRPC 1.51's callback
// services answer it with UNIMPLEMENTED and no message, as if the method did not exist.
#ifndef FLUX_ENGINE_SERVER_MALFORMED_H_
#define FLUX_ENGINE_SERVER_MALFORMED_H_

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <vector>

namespace flux::server {

// For ServerBuilder::experimental().SetInterceptorCreators. Workers' streams are left alone: there
// is nothing on their way.
std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
MalformedRequestInterceptors();

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_MALFORMED_H_
