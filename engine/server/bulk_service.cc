#include "engine/server/bulk_service.h"

#include "engine/server/finish.h"

namespace flux::server {

grpc::ServerUnaryReactor* BulkServiceImpl::StartBulkOperation(
    grpc::CallbackServerContext* context, const v1::StartBulkOperationRequest* request,
    v1::StartBulkOperationResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->StartBulk(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* BulkServiceImpl::GetBulkOperation(
    grpc::CallbackServerContext* context, const v1::GetBulkOperationRequest* request,
    v1::GetBulkOperationResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->GetBulk(*request, Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* BulkServiceImpl::ListBulkOperations(
    grpc::CallbackServerContext* context, const v1::ListBulkOperationsRequest*,
    v1::ListBulkOperationsResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->ListBulks(Finish(engine_, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* BulkServiceImpl::CancelBulkOperation(
    grpc::CallbackServerContext* context, const v1::CancelBulkOperationRequest* request,
    v1::CancelBulkOperationResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->CancelBulk(*request, Finish(engine_, reactor, response));
  return reactor;
}

}  // namespace flux::server
