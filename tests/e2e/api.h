// The coordinator as the end-to-end tests talk to it: its own gRPC services, without the SDK
// between, so that a test sees the very statuses and may say what no SDK would.
#ifndef FLUX_TESTS_E2E_API_H_
#define FLUX_TESTS_E2E_API_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/v1/admin.grpc.pb.h"
#include "flux/v1/worker.grpc.pb.h"
#include "flux/v1/workflow.grpc.pb.h"

namespace flux::e2e {

inline constexpr absl::Duration kCallDeadline = absl::Seconds(60);

absl::Status FromGrpc(const grpc::Status& status);

v1::Payload Json(std::string_view text);
v1::Payload JsonNumber(int64_t number);
v1::ExecutionRef Ref(const std::string& workflow_id, const std::string& run_id = "");

// Thread-safe. Calls wait for the connection, within their deadline, while nobody serves.
class Api {
 public:
  explicit Api(const std::string& target);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  v1::WorkflowService::Stub& workflows() { return *workflows_; }

  absl::StatusOr<std::string> Put(const v1::Definition& definition);  // its hash
  absl::StatusOr<v1::StartWorkflowResponse> Start(const v1::StartWorkflowRequest& request,
                                                  absl::Duration deadline = kCallDeadline);
  // One request of the kind: status RUNNING if it did not close within `wait`.
  absl::StatusOr<v1::GetResultResponse> Result(const v1::ExecutionRef& ref,
                                               absl::Duration wait = absl::ZeroDuration(),
                                               absl::Duration deadline = kCallDeadline);
  // Asks until it has closed; DeadlineExceeded after `patience`.
  absl::StatusOr<v1::GetResultResponse> AwaitClosed(const v1::ExecutionRef& ref,
                                                    absl::Duration patience = kCallDeadline);
  absl::StatusOr<v1::DescribeExecutionResponse> Describe(const v1::ExecutionRef& ref);
  // The only execution's step of that name, wherever it is in the tree of root steps.
  absl::StatusOr<v1::StepInfo> DescribeStep(const v1::ExecutionRef& ref, const std::string& name);
  absl::StatusOr<std::vector<v1::HistoryEvent>> History(const v1::ExecutionRef& ref);
  absl::StatusOr<v1::VerifyExecutionResponse> Verify(const v1::ExecutionRef& ref);
  absl::StatusOr<uint64_t> Count(const v1::ExecutionFilter& filter = {});
  absl::StatusOr<std::vector<v1::ExecutionInfo>> List(uint32_t page_size = 0);
  absl::StatusOr<v1::GetServerInfoResponse> Info();
  absl::StatusOr<std::vector<v1::WorkerInfo>> Workers();
  absl::StatusOr<v1::GetTaskQueueResponse> Queue(const std::string& name);
  absl::Status Cancel(const v1::ExecutionRef& ref, const std::string& reason);
  absl::Status Terminate(const v1::ExecutionRef& ref, const std::string& reason);
  uint64_t Counter(const std::string& name);  // of GetServerInfo; fails the test if it cannot

  // A call of any method with any bytes.
  struct RawAnswer {
    grpc::Status status;
    std::vector<std::string> messages;
  };
  RawAnswer CallRaw(const std::string& method, const std::string& bytes);

 private:
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request, absl::Duration deadline = kCallDeadline);

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::WorkflowService::Stub> workflows_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

// A worker that says exactly what the test wants: one stream of WorkerService.Connect. Answers
// pings by itself unless told not to. Thread-safe.
class RawWorker {
 public:
  explicit RawWorker(Api& api);
  ~RawWorker();
  RawWorker(const RawWorker&) = delete;
  RawWorker& operator=(const RawWorker&) = delete;

  static v1::WorkerHello HelloOf(const std::string& id, std::vector<std::string> tasks);

  void Send(const v1::ConnectRequest& message);
  void Hello(const v1::WorkerHello& hello, uint32_t credit = 0);
  void Credit(uint32_t credit);
  void Answer(const v1::TaskToken& token, const v1::Payload& value);
  void set_answers_pings(bool answers) { answers_pings_ = answers; }

  // The next of what came, in its order; nothing within the patience: fails the test.
  v1::Welcome AwaitWelcome();
  v1::Task AwaitTask();
  v1::ResultAck AwaitAck();
  v1::CancelTask AwaitCancel();
  // What has come and was not taken.
  size_t tasks_waiting();
  // Ends this side; the status the coordinator ended the stream with.
  absl::Status Finish();
  // Waits for the coordinator to end it.
  absl::Status AwaitEnd();
  // Breaks the stream without a word.
  void Break();

 private:
  template <typename T>
  T Take(std::deque<T>& queue, const char* what);
  void ReadAll();
  void Join();

  std::unique_ptr<v1::WorkerService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>> stream_;
  std::atomic<bool> answers_pings_{true};
  std::mutex write_mutex_;  // one write at a time
  bool writes_done_ = false;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<v1::Welcome> welcomes_;
  std::deque<v1::Task> tasks_;
  std::deque<v1::ResultAck> acks_;
  std::deque<v1::CancelTask> cancels_;
  bool ended_ = false;
  absl::Status status_;
  std::thread reader_;
};

}  // namespace flux::e2e

#endif  // FLUX_TESTS_E2E_API_H_
