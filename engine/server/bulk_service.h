// The gRPC service of bulk operations over an Engine.
#ifndef FLUX_ENGINE_SERVER_BULK_SERVICE_H_
#define FLUX_ENGINE_SERVER_BULK_SERVICE_H_

#include "engine/shard/engine.h"
#include "flux/v1/bulk.grpc.pb.h"

namespace flux::server {

// Thread-safe; handlers run on gRPC's threads and never block on the disk. Must outlive the server.
class BulkServiceImpl final : public v1::BulkService::CallbackService {
 public:
  explicit BulkServiceImpl(engine::Engine* engine) : engine_(engine) {}

  grpc::ServerUnaryReactor* StartBulkOperation(grpc::CallbackServerContext*,
                                               const v1::StartBulkOperationRequest*,
                                               v1::StartBulkOperationResponse*) override;
  grpc::ServerUnaryReactor* GetBulkOperation(grpc::CallbackServerContext*,
                                             const v1::GetBulkOperationRequest*,
                                             v1::GetBulkOperationResponse*) override;
  grpc::ServerUnaryReactor* ListBulkOperations(grpc::CallbackServerContext*,
                                               const v1::ListBulkOperationsRequest*,
                                               v1::ListBulkOperationsResponse*) override;
  grpc::ServerUnaryReactor* CancelBulkOperation(grpc::CallbackServerContext*,
                                                const v1::CancelBulkOperationRequest*,
                                                v1::CancelBulkOperationResponse*) override;

 private:
  engine::Engine* const engine_;
};

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_BULK_SERVICE_H_
