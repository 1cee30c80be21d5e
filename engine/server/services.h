// The client-facing gRPC services over an Engine: they check the message, ask, and translate the
// answer.
#ifndef FLUX_ENGINE_SERVER_SERVICES_H_
#define FLUX_ENGINE_SERVER_SERVICES_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>

#include "engine/shard/engine.h"
#include "flux/v1/admin.grpc.pb.h"
#include "flux/v1/workflow.grpc.pb.h"

namespace flux::server {

// Thread-safe; handlers run on gRPC's threads and never block on the disk. Must outlive the server.
class WorkflowServiceImpl final : public v1::WorkflowService::CallbackService {
 public:
  WorkflowServiceImpl(engine::Engine* engine, engine::Background* background);
  // Ends every watch, so that the server can shut down.
  void Shutdown();

  grpc::ServerUnaryReactor* PutDefinition(grpc::CallbackServerContext*,
                                          const v1::PutDefinitionRequest*,
                                          v1::PutDefinitionResponse*) override;
  grpc::ServerUnaryReactor* GetDefinition(grpc::CallbackServerContext*,
                                          const v1::GetDefinitionRequest*,
                                          v1::GetDefinitionResponse*) override;
  grpc::ServerUnaryReactor* ListDefinitions(grpc::CallbackServerContext*,
                                            const v1::ListDefinitionsRequest*,
                                            v1::ListDefinitionsResponse*) override;
  grpc::ServerUnaryReactor* StartWorkflow(grpc::CallbackServerContext*,
                                          const v1::StartWorkflowRequest*,
                                          v1::StartWorkflowResponse*) override;
  grpc::ServerUnaryReactor* GetResult(grpc::CallbackServerContext*, const v1::GetResultRequest*,
                                      v1::GetResultResponse*) override;
  grpc::ServerUnaryReactor* DescribeExecution(grpc::CallbackServerContext*,
                                              const v1::DescribeExecutionRequest*,
                                              v1::DescribeExecutionResponse*) override;
  grpc::ServerUnaryReactor* GetHistory(grpc::CallbackServerContext*, const v1::GetHistoryRequest*,
                                       v1::GetHistoryResponse*) override;
  grpc::ServerWriteReactor<v1::WatchExecutionResponse>* WatchExecution(
      grpc::CallbackServerContext*, const v1::WatchExecutionRequest*) override;
  grpc::ServerUnaryReactor* ListExecutions(grpc::CallbackServerContext*,
                                           const v1::ListExecutionsRequest*,
                                           v1::ListExecutionsResponse*) override;
  grpc::ServerUnaryReactor* CountExecutions(grpc::CallbackServerContext*,
                                            const v1::CountExecutionsRequest*,
                                            v1::CountExecutionsResponse*) override;
  grpc::ServerUnaryReactor* CancelExecution(grpc::CallbackServerContext*,
                                            const v1::CancelExecutionRequest*,
                                            v1::CancelExecutionResponse*) override;
  grpc::ServerUnaryReactor* TerminateExecution(grpc::CallbackServerContext*,
                                               const v1::TerminateExecutionRequest*,
                                               v1::TerminateExecutionResponse*) override;
  grpc::ServerUnaryReactor* SendEvent(grpc::CallbackServerContext*, const v1::SendEventRequest*,
                                      v1::SendEventResponse*) override;
  grpc::ServerUnaryReactor* ListEvents(grpc::CallbackServerContext*, const v1::ListEventsRequest*,
                                       v1::ListEventsResponse*) override;
  grpc::ServerUnaryReactor* OperateExecution(grpc::CallbackServerContext*,
                                             const v1::OperateExecutionRequest*,
                                             v1::OperateExecutionResponse*) override;
  grpc::ServerUnaryReactor* ListDeletions(grpc::CallbackServerContext*,
                                          const v1::ListDeletionsRequest*,
                                          v1::ListDeletionsResponse*) override;

 private:
  engine::Engine* const engine_;
  engine::Background* const background_;
  const std::shared_ptr<std::atomic<bool>>
      stopping_;  // shared with watches, which may outlive a call
};

class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  explicit AdminServiceImpl(engine::Engine* engine);
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext*,
                                          const v1::GetServerInfoRequest*,
                                          v1::GetServerInfoResponse*) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext*, const v1::ListWorkersRequest*,
                                        v1::ListWorkersResponse*) override;
  grpc::ServerUnaryReactor* ListTaskQueues(grpc::CallbackServerContext*,
                                           const v1::ListTaskQueuesRequest*,
                                           v1::ListTaskQueuesResponse*) override;
  grpc::ServerUnaryReactor* GetTaskQueue(grpc::CallbackServerContext*,
                                         const v1::GetTaskQueueRequest*,
                                         v1::GetTaskQueueResponse*) override;
  grpc::ServerUnaryReactor* VerifyExecution(grpc::CallbackServerContext*,
                                            const v1::VerifyExecutionRequest*,
                                            v1::VerifyExecutionResponse*) override;

 private:
  engine::Engine* const engine_;
};

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_SERVICES_H_
