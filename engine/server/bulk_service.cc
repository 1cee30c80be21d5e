#include "engine/server/bulk_service.h"

#include "engine/server/to_grpc.h"

namespace flux::server {
namespace {

// A reply that moves the answer into the response and finishes the call.
template <typename Response>
auto Finish(grpc::ServerUnaryReactor* reactor, Response* response) {
  return [reactor, response](absl::StatusOr<Response> answer) {
    if (answer.ok()) response->Swap(&*answer);
    reactor->Finish(ToGrpc(answer.status()));
  };
}

}  // namespace

grpc::ServerUnaryReactor* BulkServiceImpl::StartBulkOperation(
    grpc::CallbackServerContext* context, const v1::StartBulkOperationRequest* request,
    v1::StartBulkOperationResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->StartBulk(*request, Finish(reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* BulkServiceImpl::GetBulkOperation(
    grpc::CallbackServerContext* context, const v1::GetBulkOperationRequest* request,
    v1::GetBulkOperationResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->GetBulk(*request, Finish(reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* BulkServiceImpl::ListBulkOperations(
    grpc::CallbackServerContext* context, const v1::ListBulkOperationsRequest*,
    v1::ListBulkOperationsResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->ListBulks(Finish(reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* BulkServiceImpl::CancelBulkOperation(
    grpc::CallbackServerContext* context, const v1::CancelBulkOperationRequest* request,
    v1::CancelBulkOperationResponse* response) {
  auto* reactor = context->DefaultReactor();
  engine_->CancelBulk(*request, Finish(reactor, response));
  return reactor;
}

}  // namespace flux::server
