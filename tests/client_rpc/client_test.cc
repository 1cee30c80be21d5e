// The client against a scripted WorkflowService.
#include "flux/client.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "flux/v1/workflow.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace flux {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr Task<std::string(int)> kSpell{"spell"};
constexpr Workflow<std::string(int)> kSpelled{
    "spelled", {.version = "3"}, [](Graph& g, Value<int> n) { return g.Call(kSpell, n); }};
constexpr Task<std::optional<int>(int)> kMaybe{"maybe"};
constexpr Workflow<std::optional<int>(int)> kPerhaps{
    "perhaps", [](Graph& g, Value<int> n) { return g.Call(kMaybe, n); }};

grpc::Status Unavailable() { return {grpc::StatusCode::UNAVAILABLE, "try later"}; }

// Answers each call from a queue of canned statuses first, then as a small coordinator would.
class FakeService final : public v1::WorkflowService::Service {
 public:
  explicit FakeService(int port = 0) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeService() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }

  // The next calls of `method` fail so, in order.
  void Fail(const std::string& method, std::vector<grpc::Status> statuses) {
    std::lock_guard lock(mutex_);
    for (grpc::Status& status : statuses) failures_[method].push_back(std::move(status));
  }
  void Close(const std::string& id, v1::GetResultResponse result) {
    std::lock_guard lock(mutex_);
    closed_[id] = std::move(result);
    changed_.notify_all();
  }
  int calls(const std::string& method) {
    std::lock_guard lock(mutex_);
    return calls_[method];
  }
  bool AwaitCalls(const std::string& method, int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30),
                             [&] { return calls_[method] >= count; });
  }
  std::vector<v1::StartWorkflowRequest> starts() {
    std::lock_guard lock(mutex_);
    return starts_;
  }
  std::vector<v1::Definition> definitions() {
    std::lock_guard lock(mutex_);
    return definitions_;
  }
  std::vector<v1::CancelExecutionRequest> cancels() {
    std::lock_guard lock(mutex_);
    return cancels_;
  }
  std::vector<v1::TerminateExecutionRequest> terminates() {
    std::lock_guard lock(mutex_);
    return terminates_;
  }
  std::vector<v1::SendEventRequest> events() {
    std::lock_guard lock(mutex_);
    return events_;
  }
  std::vector<v1::OperateExecutionRequest> operations() {
    std::lock_guard lock(mutex_);
    return operations_;
  }
  void set_knows_definitions(bool knows) { knows_definitions_ = knows; }

 private:
  grpc::Status Next(const std::string& method) {  // holds mutex_
    ++calls_[method];
    changed_.notify_all();
    std::deque<grpc::Status>& failures = failures_[method];
    if (failures.empty()) return grpc::Status::OK;
    grpc::Status status = failures.front();
    failures.pop_front();
    return status;
  }

  grpc::Status StartWorkflow(grpc::ServerContext*, const v1::StartWorkflowRequest* request,
                             v1::StartWorkflowResponse* response) override {
    std::lock_guard lock(mutex_);
    starts_.push_back(*request);
    if (grpc::Status status = Next("Start"); !status.ok()) return status;
    if (!knows_definitions_ && definitions_.empty()) {
      return {grpc::StatusCode::NOT_FOUND, "no definition of that hash: put it first"};
    }
    const bool repeated = !request_ids_.insert(request->request_id()).second;
    response->set_workflow_id(request->workflow_id().empty() ? "made-up" : request->workflow_id());
    response->set_run_id("0190abcd000070008000000000000001");
    response->set_started(!repeated);
    return grpc::Status::OK;
  }
  grpc::Status PutDefinition(grpc::ServerContext*, const v1::PutDefinitionRequest* request,
                             v1::PutDefinitionResponse*) override {
    std::lock_guard lock(mutex_);
    if (grpc::Status status = Next("Put"); !status.ok()) return status;
    definitions_.push_back(request->definition());
    return grpc::Status::OK;
  }
  grpc::Status GetResult(grpc::ServerContext* context, const v1::GetResultRequest* request,
                         v1::GetResultResponse* response) override {
    std::unique_lock lock(mutex_);
    if (grpc::Status status = Next("Result"); !status.ok()) return status;
    const std::string& id = request->execution().workflow_id();
    changed_.wait_for(lock, std::chrono::milliseconds(request->wait_ms()),
                      [&] { return closed_.contains(id) || stopping_ || context->IsCancelled(); });
    if (stopping_) return Unavailable();
    if (closed_.contains(id)) {
      *response = closed_[id];
    } else {
      response->set_status(v1::EXECUTION_STATUS_RUNNING);
    }
    response->set_run_id("0190abcd000070008000000000000001");
    return grpc::Status::OK;
  }
  grpc::Status CancelExecution(grpc::ServerContext*, const v1::CancelExecutionRequest* request,
                               v1::CancelExecutionResponse*) override {
    std::lock_guard lock(mutex_);
    cancels_.push_back(*request);
    return Next("Cancel");
  }
  grpc::Status TerminateExecution(grpc::ServerContext*,
                                  const v1::TerminateExecutionRequest* request,
                                  v1::TerminateExecutionResponse*) override {
    std::lock_guard lock(mutex_);
    terminates_.push_back(*request);
    return Next("Terminate");
  }

  grpc::Status SendEvent(grpc::ServerContext*, const v1::SendEventRequest* request,
                         v1::SendEventResponse* response) override {
    std::lock_guard lock(mutex_);
    events_.push_back(*request);
    if (grpc::Status status = Next("SendEvent"); !status.ok()) return status;
    response->set_run_id("0190abcd000070008000000000000001");
    response->set_duplicate(!event_ids_.insert(request->event_id()).second);
    return grpc::Status::OK;
  }
  grpc::Status ListEvents(grpc::ServerContext*, const v1::ListEventsRequest* request,
                          v1::ListEventsResponse* response) override {
    std::lock_guard lock(mutex_);
    if (grpc::Status status = Next("ListEvents"); !status.ok()) return status;
    for (const v1::SendEventRequest& sent : events_) {
      if (sent.execution().workflow_id() != request->execution().workflow_id()) continue;
      v1::EventInfo& info = *response->add_events();
      info.set_number(static_cast<uint64_t>(response->events_size()));
      info.set_event(sent.event());
      info.set_event_id(sent.event_id());
      info.set_time_ms(1'714'564'800'000);
      info.set_deliver_time_ms(sent.deliver_time_ms());
      info.set_delivered(sent.deliver_time_ms() == 0);
      info.set_readers(sent.deliver_time_ms() == 0 ? 2 : 0);
      if (request->payloads()) *info.mutable_payload() = sent.payload();
    }
    return grpc::Status::OK;
  }
  grpc::Status OperateExecution(grpc::ServerContext*, const v1::OperateExecutionRequest* request,
                                v1::OperateExecutionResponse* response) override {
    std::lock_guard lock(mutex_);
    operations_.push_back(*request);
    if (grpc::Status status = Next("Operate"); !status.ok()) return status;
    response->set_run_id("0190abcd000070008000000000000001");
    response->set_detail("done");
    return grpc::Status::OK;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::SendEventRequest> events_;
  std::set<std::string> event_ids_;
  std::vector<v1::OperateExecutionRequest> operations_;
  std::map<std::string, std::deque<grpc::Status>> failures_;
  std::map<std::string, int> calls_;
  std::map<std::string, v1::GetResultResponse> closed_;
  std::vector<v1::StartWorkflowRequest> starts_;
  std::vector<v1::Definition> definitions_;
  std::vector<v1::CancelExecutionRequest> cancels_;
  std::vector<v1::TerminateExecutionRequest> terminates_;
  std::set<std::string> request_ids_;
  std::atomic<bool> knows_definitions_ = true;
  bool stopping_ = false;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

ClientOptions Fast() {
  ClientOptions options;
  options.identity = "tester";
  options.backoff_initial = absl::Milliseconds(1);
  options.backoff_max = absl::Milliseconds(10);
  return options;
}

Client Connected(const FakeService& service, ClientOptions options = Fast()) {
  absl::StatusOr<Client> client = Client::Connect(service.target(), std::move(options));
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

v1::GetResultResponse Completed(const std::string& json) {
  v1::GetResultResponse response;
  response.set_status(v1::EXECUTION_STATUS_COMPLETED);
  response.mutable_result()->set_encoding(v1::ENCODING_JSON);
  response.mutable_result()->set_data(json);
  return response;
}

v1::GetResultResponse Failed(v1::ExecutionStatus status, const std::string& type,
                             const std::string& message) {
  v1::GetResultResponse response;
  response.set_status(status);
  response.mutable_failure()->set_type(type);
  response.mutable_failure()->set_message(message);
  return response;
}

TEST(Client, StartsByHashWithEverythingItWasTold) {
  FakeService service;
  ClientOptions options = Fast();
  options.namespace_ = "team";
  const Client client = Connected(service, options);
  absl::StatusOr<flux::Run<std::string>> run =
      client.Start(kSpelled,
                   {.id = "seven",
                    .conflict = ConflictPolicy::kUseExisting,
                    .reuse = ReusePolicy::kReject,
                    .labels = {{"tenant", "acme"}},
                    .execution_timeout = absl::Seconds(9)},
                   7);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->id(), "seven");
  EXPECT_EQ(run->run_id(), "0190abcd000070008000000000000001");
  EXPECT_TRUE(run->started());
  ASSERT_EQ(service.starts().size(), 1u);
  const v1::StartWorkflowRequest request = service.starts()[0];
  EXPECT_EQ(request.namespace_(), "team");
  EXPECT_EQ(request.workflow(), "spelled");
  EXPECT_EQ(request.version(), "3");
  EXPECT_EQ(request.definition_hash(), kSpelled.Trace()->hash);
  EXPECT_EQ(request.request_id().size(), 32u);
  EXPECT_EQ(request.identity(), "tester");
  EXPECT_EQ(request.conflict_policy(), v1::CONFLICT_POLICY_USE_EXISTING);
  EXPECT_EQ(request.reuse_policy(), v1::REUSE_POLICY_REJECT);
  EXPECT_EQ(request.labels().at("tenant"), "acme");
  EXPECT_EQ(request.execution_timeout_ms(), 9'000);
  ASSERT_EQ(request.inputs_size(), 1);
  EXPECT_EQ(request.inputs(0).data(), "7");
  EXPECT_EQ(service.calls("Put"), 0) << "a known definition is not sent again";
}

TEST(Client, PutsADefinitionTheCoordinatorLacksAndStartsAgain) {
  FakeService service;
  service.set_knows_definitions(false);
  const Client client = Connected(service);
  absl::StatusOr<flux::Run<std::string>> run = client.Start(kSpelled, {.id = "x"}, 7);
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_EQ(service.definitions().size(), 1u);
  EXPECT_EQ(service.definitions()[0].name(), "spelled");
  const auto starts = service.starts();
  ASSERT_EQ(starts.size(), 2u);
  EXPECT_EQ(starts[0].request_id(), starts[1].request_id());
  EXPECT_EQ(starts[1].inputs(0).data(), "7");
  ASSERT_TRUE(client.Start(kSpelled, {.id = "y"}, 8).ok());
  EXPECT_EQ(service.definitions().size(), 1u);
}

TEST(Client, SurfacesWhyADefinitionIsRefused) {
  FakeService service;
  service.set_knows_definitions(false);
  service.Fail("Put", {{grpc::StatusCode::INVALID_ARGUMENT, "step 'spell': too many retries"}});
  const Client client = Connected(service);
  const absl::Status status = client.Start(kSpelled, {}, 7).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 'spell': too many retries"));
}

TEST(Client, PutMakesADefinitionKnown) {
  FakeService service;
  const Client client = Connected(service);
  EXPECT_TRUE(client.Put(kSpelled).ok());
  ASSERT_EQ(service.definitions().size(), 1u);
  EXPECT_EQ(service.definitions()[0].SerializeAsString(), kSpelled.Trace()->definition_bytes);
  EXPECT_EQ(client.PutDefinition("\xff nonsense").code(), absl::StatusCode::kInvalidArgument);
}

TEST(Client, RepeatsAStartUnderOneRequestIdUntilItIsAnswered) {
  FakeService service;
  service.Fail("Start", {Unavailable(), Unavailable(), Unavailable()});
  const Client client = Connected(service);
  absl::StatusOr<flux::Run<std::string>> run = client.Start(kSpelled, {.id = "x"}, 7);
  ASSERT_TRUE(run.ok()) << run.status();
  const auto starts = service.starts();
  ASSERT_EQ(starts.size(), 4u);
  for (const auto& start : starts) EXPECT_EQ(start.request_id(), starts[0].request_id());
  // The next one is another request.
  ASSERT_TRUE(client.Start(kSpelled, {.id = "y"}, 7).ok());
  EXPECT_NE(service.starts().back().request_id(), starts[0].request_id());
  // Unless the caller says so: then it is answered with what exists.
  absl::StatusOr<flux::Run<std::string>> again =
      client.Start(kSpelled, {.id = "x", .request_id = starts[0].request_id()}, 7);
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->started());
}

TEST(Client, RepeatsAStartWhoseAnswerWasLost) {
  // One try's deadline passes while the coordinator is busy; the next is answered.
  FakeService service;
  service.Fail("Start", {{grpc::StatusCode::DEADLINE_EXCEEDED, "too slow"}});
  const Client client = Connected(service);
  EXPECT_TRUE(client.Start(kSpelled, {.id = "x"}, 7).ok());
  EXPECT_EQ(service.starts().size(), 2u);
}

TEST(Client, GivesUpAtItsDeadlineAndSaysHowOftenItTried) {
  FakeService service;
  service.Fail("Start", std::vector<grpc::Status>(10'000, Unavailable()));
  const Client client = Connected(service);
  const absl::Status status =
      client.Start(kSpelled, {.id = "x", .deadline = absl::Milliseconds(100)}, 7).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(service.target()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("tries in "));
  EXPECT_GT(service.starts().size(), 2u);
}

TEST(Client, SurfacesOtherErrorsAtOnceWithTheAddress) {
  const std::pair<grpc::StatusCode, absl::StatusCode> cases[] = {
      {grpc::StatusCode::INVALID_ARGUMENT, absl::StatusCode::kInvalidArgument},
      {grpc::StatusCode::ALREADY_EXISTS, absl::StatusCode::kAlreadyExists},
      {grpc::StatusCode::FAILED_PRECONDITION, absl::StatusCode::kFailedPrecondition},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, absl::StatusCode::kResourceExhausted},
      {grpc::StatusCode::ABORTED, absl::StatusCode::kAborted},
      {grpc::StatusCode::INTERNAL, absl::StatusCode::kInternal},
      {grpc::StatusCode::DATA_LOSS, absl::StatusCode::kDataLoss},
  };
  FakeService service;
  const Client client = Connected(service);
  int calls = 0;
  for (const auto& [sent, expected] : cases) {
    service.Fail("Start", {{sent, "the id 'x' is the matter"}});
    const absl::Status status = client.Start(kSpelled, {.id = "x"}, 7).status();
    EXPECT_EQ(status.code(), expected);
    EXPECT_THAT(std::string(status.message()), HasSubstr("the id 'x' is the matter"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(service.target()));
    EXPECT_EQ(service.calls("Start"), ++calls) << "not retried";
  }
}

TEST(Client, ReturnsATypedResult) {
  FakeService service;
  const Client client = Connected(service);
  service.Close("x", Completed("\"seven\""));
  absl::StatusOr<flux::Run<std::string>> run = client.Start(kSpelled, {.id = "x"}, 7);
  ASSERT_TRUE(run.ok());
  absl::StatusOr<std::string> result = run->Result();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, "seven");
  EXPECT_EQ(*client.Attach<std::string>("x").Result(), "seven");
  EXPECT_EQ(client.AttachRaw("x").Result()->data, "\"seven\"");
  EXPECT_EQ(client.Attach<int>("x").Result().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Client, WaitsThroughManyPollsAndAnUnreachableCoordinator) {
  FakeService service;
  ClientOptions options = Fast();
  options.poll = absl::Milliseconds(1);
  const Client client = Connected(service, options);
  service.Fail("Result", {grpc::Status::OK, Unavailable(), Unavailable()});
  auto result =
      std::async(std::launch::async, [&] { return client.Attach<std::string>("x").Result(); });
  ASSERT_TRUE(service.AwaitCalls("Result", 6));
  service.Close("x", Completed("\"late\""));
  EXPECT_EQ(*result.get(), "late");
}

TEST(Client, ResultOutlivesARestartOfTheCoordinator) {
  auto service = std::make_unique<FakeService>();
  const int port = service->port();
  const Client client = Connected(*service);
  auto result =
      std::async(std::launch::async, [&] { return client.Attach<std::string>("x").Result(); });
  ASSERT_TRUE(service->AwaitCalls("Result", 1));
  service = nullptr;
  service = std::make_unique<FakeService>(port);
  service->Close("x", Completed("\"back\""));
  absl::StatusOr<std::string> got = result.get();
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(*got, "back");
}

TEST(Client, ResultStopsWaitingAtItsTimeout) {
  FakeService service;
  const Client client = Connected(service);
  const flux::Run<std::string> run = client.Attach<std::string>("x");
  const absl::Status status = run.Result(absl::Milliseconds(10)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'x'"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("still running"));
  EXPECT_EQ(run.Result(absl::ZeroDuration()).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(Client, MapsHowAnExecutionEndedToAStatusThatCarriesItsFailure) {
  struct Case {
    v1::ExecutionStatus status;
    absl::StatusCode code;
    const char* words;
  };
  const Case cases[] = {
      {v1::EXECUTION_STATUS_FAILED, absl::StatusCode::kUnknown, "failed"},
      {v1::EXECUTION_STATUS_CANCELLED, absl::StatusCode::kCancelled, "was cancelled"},
      {v1::EXECUTION_STATUS_TERMINATED, absl::StatusCode::kAborted, "was terminated"},
  };
  FakeService service;
  const Client client = Connected(service);
  for (const Case& c : cases) {
    service.Close("x", Failed(c.status, "bad-page", "page 7 is empty"));
    const absl::Status status = client.Attach<std::string>("x").Result().status();
    EXPECT_EQ(status.code(), c.code);
    EXPECT_THAT(std::string(status.message()),
                ::testing::AllOf(HasSubstr("'x'"), HasSubstr(c.words), HasSubstr("bad-page"),
                                 HasSubstr("page 7 is empty")));
    const Failure failure = FailureOf(status);
    EXPECT_EQ(failure.type, "bad-page");
    EXPECT_EQ(failure.message, "page 7 is empty");
    EXPECT_FALSE(flux::IsSkipped(status));
  }
}

TEST(Client, ASkippedResultIsAStatusOfItsOwnOrNothing) {
  FakeService service;
  const Client client = Connected(service);
  v1::GetResultResponse skipped;
  skipped.set_status(v1::EXECUTION_STATUS_SKIPPED);
  service.Close("x", skipped);
  const absl::Status status = client.Attach<std::string>("x").Result().status();
  EXPECT_TRUE(flux::IsSkipped(status)) << status;
  absl::StatusOr<flux::Run<std::optional<int>>> run = client.Start(kPerhaps, {.id = "x"}, 1);
  ASSERT_TRUE(run.ok()) << run.status();
  absl::StatusOr<std::optional<int>> result = run->Result();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, std::nullopt);
}

TEST(Client, CallsBackAndKeepsFutures) {
  FakeService service;
  flux::Run<std::string> run = [&] {
    const Client client = Connected(service);
    return client.Attach<std::string>("x");
  }();  // the run outlives its client
  std::future<absl::StatusOr<std::string>> future = run.Future();
  std::promise<absl::StatusOr<std::string>> called;
  run.OnResult([&](absl::StatusOr<std::string> result) { called.set_value(std::move(result)); });
  ASSERT_TRUE(service.AwaitCalls("Result", 2));
  service.Close("x", Completed("\"both\""));
  EXPECT_EQ(*future.get(), "both");
  EXPECT_EQ(*called.get_future().get(), "both");
}

TEST(Client, StartsThousandsAtOnce) {
  FakeService service;
  const Client client = Connected(service);
  constexpr int kStarts = 3'000;
  std::mutex mutex;
  std::condition_variable changed;
  int done = 0;
  int failed = 0;
  for (int i = 0; i < kStarts; ++i) {
    client.StartAsync(
        kSpelled, {.id = "run-" + std::to_string(i)},
        [&](absl::StatusOr<flux::Run<std::string>> run) {
          std::lock_guard lock(mutex);
          ++done;
          if (!run.ok()) ++failed;
          changed.notify_one();
        },
        i);
  }
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return done == kStarts; }));
  EXPECT_EQ(failed, 0);
  lock.unlock();
  std::set<std::string> ids;
  for (const auto& start : service.starts()) ids.insert(start.workflow_id());
  EXPECT_EQ(ids.size(), static_cast<size_t>(kStarts));
}

TEST(Client, StartsByNameAndVersion) {
  FakeService service;
  const Client client = Connected(service);
  absl::StatusOr<RawRun> run = client.StartRaw(
      "by-name", {},
      {Payload{.data = "1", .encoding = Encoding::kJson, .content_type = "", .metadata = {}}},
      "v9");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->id(), "made-up");
  const auto starts = service.starts();
  EXPECT_EQ(starts[0].workflow(), "by-name");
  EXPECT_EQ(starts[0].version(), "v9");
  EXPECT_TRUE(starts[0].definition_hash().empty());
  service.Fail("Start", {{grpc::StatusCode::NOT_FOUND, "no workflow 'other'"}});
  const absl::Status status = client.StartRaw("other", {}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(service.calls("Put"), 0);
}

TEST(Client, CancelsTerminatesAndAsksTheStatus) {
  FakeService service;
  const Client client = Connected(service);
  const RawRun run = client.AttachRaw("x", "r1");
  EXPECT_EQ(*run.Status(), ExecutionStatus::kRunning);
  EXPECT_TRUE(run.Cancel("enough").ok());
  EXPECT_TRUE(run.Terminate("really").ok());
  ASSERT_EQ(service.cancels().size(), 1u);
  EXPECT_EQ(service.cancels()[0].reason(), "enough");
  EXPECT_EQ(service.cancels()[0].identity(), "tester");
  EXPECT_EQ(service.cancels()[0].execution().workflow_id(), "x");
  EXPECT_EQ(service.cancels()[0].execution().run_id(), "r1");
  ASSERT_EQ(service.terminates().size(), 1u);
  EXPECT_EQ(service.terminates()[0].reason(), "really");
  service.Fail("Cancel", {{grpc::StatusCode::FAILED_PRECONDITION, "it has closed"}});
  EXPECT_EQ(run.Cancel("again").code(), absl::StatusCode::kFailedPrecondition);
}

TEST(Client, CancelsAndTerminatesAgainWhenTheAnswerWasLost) {
  FakeService service;
  const Client client = Connected(service);
  const RawRun run = client.AttachRaw("x", "r1");
  // The service has it before it fails; to a coordinator the second is nothing new.
  service.Fail("Cancel", {Unavailable()});
  service.Fail("Terminate", {Unavailable()});
  EXPECT_TRUE(run.Cancel("enough").ok());
  EXPECT_TRUE(run.Terminate("really").ok());
  ASSERT_EQ(service.cancels().size(), 2u);
  EXPECT_EQ(service.cancels()[0].SerializeAsString(), service.cancels()[1].SerializeAsString());
  ASSERT_EQ(service.terminates().size(), 2u);
}

TEST(Client, SaysThatAnAddressCannotBeReached) {
  int port = 0;
  {
    FakeService service;
    port = service.port();
  }
  const std::string target = "127.0.0.1:" + std::to_string(port);
  ClientOptions options = Fast();
  options.connect_timeout = absl::Milliseconds(50);
  const absl::Status status = Client::Connect(target, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(target));
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("is fluxd running there"));

  // Without waiting, the first call says so.
  options.connect_timeout = absl::ZeroDuration();
  options.deadline = absl::Milliseconds(50);
  absl::StatusOr<Client> lazy = Client::Connect(target, options);
  ASSERT_TRUE(lazy.ok());
  const absl::Status call = lazy->Start(kSpelled, {}, 1).status();
  EXPECT_EQ(call.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(call.message()), HasSubstr(target));
}

TEST(Client, RefusesWhatIsNoAddress) {
  for (const char* target :
       {"", "localhost", "localhost:", ":4510", "host:0", "host:65536", "host:12ab", "host:-1"}) {
    const absl::Status status = Client::Connect(target).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << target;
    EXPECT_THAT(std::string(status.message()), HasSubstr("host:port")) << target;
  }
}

TEST(Client, SaysThatAServerIsNoCoordinator) {
  // A gRPC server without the service.
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  auto generic = std::make_unique<v1::WorkflowService::Service>();
  builder.RegisterService(generic.get());  // offers nothing but Unimplemented
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  absl::StatusOr<Client> client = Client::Connect("127.0.0.1:" + std::to_string(port), Fast());
  ASSERT_TRUE(client.ok());
  const absl::Status status = client->Start(kSpelled, {}, 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no Flux coordinator"));
  server->Shutdown();
}

TEST(ExecutionStatus, HasANameAndKnowsWhetherItIsClosed) {
  struct Case {
    ExecutionStatus status;
    const char* name;
    bool closed;
  };
  const Case cases[] = {
      {ExecutionStatus::kRunning, "running", false},
      {ExecutionStatus::kCompleted, "completed", true},
      {ExecutionStatus::kFailed, "failed", true},
      {ExecutionStatus::kCancelled, "cancelled", true},
      {ExecutionStatus::kTerminated, "terminated", true},
      {ExecutionStatus::kSkipped, "skipped", true},
      {ExecutionStatus::kCancelling, "cancelling", false},
      {ExecutionStatus::kFailing, "failing", false},
      {ExecutionStatus::kPaused, "paused", false},
      {ExecutionStatus::kUnspecified, "unknown", false},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(ExecutionStatusName(c.status), c.name);
    EXPECT_EQ(IsClosed(c.status), c.closed) << c.name;
  }
}

constexpr Event<bool> kApproved{"approved"};
constexpr Event<void> kPoked{"poked"};

TEST(ClientEvents, SendsWhatIsAskedFor) {
  FakeService service;
  const Client client = Connected(service);
  const absl::Time later = absl::FromUnixMillis(1'714'564'900'000);
  const auto sent = client.SendEvent(
      kApproved, "chart-17", true,
      {.run_id = "0190abcd000070008000000000000001", .event_id = "mail-3", .deliver_at = later});
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(sent->run_id, "0190abcd000070008000000000000001");
  EXPECT_EQ(sent->event_id, "mail-3");
  EXPECT_FALSE(sent->duplicate);
  EXPECT_TRUE(client.SendEvent(kApproved, "chart-17", true, {.event_id = "mail-3"})->duplicate);
  ASSERT_TRUE(client.Attach<std::string>("chart-17", "0190abcd000070008000000000000002")
                  .SendEvent(kPoked, Unit{})
                  .ok());
  const auto events = service.events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].execution().namespace_(), "default");
  EXPECT_EQ(events[0].execution().workflow_id(), "chart-17");
  EXPECT_EQ(events[0].execution().run_id(), "0190abcd000070008000000000000001");
  EXPECT_EQ(events[0].event(), "approved");
  EXPECT_EQ(events[0].payload().data(), "true");
  EXPECT_EQ(events[0].deliver_time_ms(), absl::ToUnixMillis(later));
  EXPECT_EQ(events[0].identity(), "tester");
  EXPECT_EQ(events[1].deliver_time_ms(), 0);
  EXPECT_EQ(events[2].execution().run_id(), "0190abcd000070008000000000000002");
  EXPECT_EQ(events[2].payload().data(), "null");
}

TEST(ClientEvents, ARepeatedTryIsTheSameEvent) {
  FakeService service;
  const Client client = Connected(service);
  service.Fail("SendEvent", {Unavailable(), Unavailable()});
  ASSERT_TRUE(client.SendEvent(kApproved, "chart-17", false).ok());
  ASSERT_TRUE(client.SendEvent(kApproved, "chart-17", false).ok());
  const auto events = service.events();
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].event_id().size(), 32u);
  EXPECT_EQ(events[0].event_id(), events[1].event_id());
  EXPECT_EQ(events[0].event_id(), events[2].event_id());
  EXPECT_NE(events[0].event_id(), events[3].event_id()) << "another call is another event";
}

TEST(ClientEvents, BadValuesAndRefusalsAreNamed) {
  FakeService service;
  const Client client = Connected(service);
  constexpr Event<std::string> kNote{"note"};
  const absl::Status unreadable = client.SendEvent(kNote, "chart-17", "\xFF").status();
  EXPECT_EQ(unreadable.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unreadable.message()),
              HasSubstr("the value of event 'note' cannot be encoded"));
  EXPECT_EQ(client.SendEvent(kNote, "chart-17", "x", {.deliver_at = absl::InfiniteFuture()})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(service.calls("SendEvent"), 0);
  service.Fail("SendEvent", {{grpc::StatusCode::INVALID_ARGUMENT, "it waits for approved"}});
  EXPECT_THAT(std::string(client.SendEvent(kNote, "chart-17", "x").status().message()),
              HasSubstr("it waits for approved"));
}

TEST(ClientEvents, ListsThemWithTheirTimesAndPayloads) {
  FakeService service;
  const Client client = Connected(service);
  const absl::Time later = absl::FromUnixMillis(1'714'564'900'000);
  ASSERT_TRUE(client.SendEvent(kApproved, "chart-17", true, {.event_id = "a"}).ok());
  ASSERT_TRUE(
      client.SendEvent(kApproved, "chart-17", false, {.event_id = "b", .deliver_at = later}).ok());
  ASSERT_TRUE(client.SendEvent(kApproved, "other", true).ok());
  const auto events = client.AttachRaw("chart-17").ListEvents();
  ASSERT_TRUE(events.ok()) << events.status();
  ASSERT_EQ(events->size(), 2u);
  EXPECT_EQ((*events)[0].event, "approved");
  EXPECT_EQ((*events)[0].event_id, "a");
  EXPECT_EQ((*events)[0].time, absl::FromUnixMillis(1'714'564'800'000));
  EXPECT_EQ((*events)[0].deliver_at, std::nullopt);
  EXPECT_TRUE((*events)[0].delivered);
  EXPECT_EQ((*events)[0].readers, 2u);
  EXPECT_EQ((*events)[0].payload.data, "true");
  EXPECT_EQ((*events)[1].number, 2u);
  EXPECT_EQ((*events)[1].deliver_at, later);
  EXPECT_FALSE((*events)[1].delivered);
}

TEST(ClientRepair, EachCommandSaysWhoAndWhy) {
  FakeService service;
  const Client client = Connected(service);
  const RawRun run = client.AttachRaw("chart-17", "0190abcd000070008000000000000001");
  const OperatorOptions why = {.reason = "the printer was off"};
  std::vector<absl::StatusOr<Operated>> results;
  results.push_back(run.Pause(why));
  results.push_back(run.Resume(why));
  results.push_back(run.Retry("merge", why));
  results.push_back(run.Retry());
  results.push_back(run.Park("merge", why));
  results.push_back(run.Unpark("merge", why));
  results.push_back(run.Skip("codes[17].parse", why));
  results.push_back(run.SetResult("merge", "a literal", why));
  results.push_back(run.Rewind("merge", {.reason = "wrong data", .identity = "boss"}));
  results.push_back(run.CancelEvent("mail-3", why));
  results.push_back(run.EditEvent(kApproved, false, 4, why));
  results.push_back(run.ReplayEvent(kApproved, true, why));
  for (const auto& result : results) {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->detail, "done");
    EXPECT_EQ(result->run_id, "0190abcd000070008000000000000001");
  }
  const auto operations = service.operations();
  ASSERT_EQ(operations.size(), results.size());
  std::vector<std::string> kinds;
  for (const v1::OperateExecutionRequest& request : operations) {
    kinds.push_back(request.operation().ShortDebugString());
    EXPECT_EQ(request.execution().run_id(), "0190abcd000070008000000000000001");
  }
  EXPECT_THAT(
      kinds,
      ElementsAre(
          "pause { }", "resume { }", "retry { step: \"merge\" }", "retry { }",
          "park { step: \"merge\" }", "unpark { step: \"merge\" }",
          "skip { step: \"codes[17].parse\" }",
          "set_result { step: \"merge\" result { data: \"\\\"a literal\\\"\" encoding: "
          "ENCODING_JSON } }",
          "rewind { step: \"merge\" }", "cancel_event { event_id: \"mail-3\" }",
          "edit_event { event: \"approved\" number: 4 payload { data: \"false\" encoding: "
          "ENCODING_JSON } }",
          "replay_event { event: \"approved\" payload { data: \"true\" encoding: ENCODING_JSON "
          "} }"));
  EXPECT_EQ(operations[0].reason(), "the printer was off");
  EXPECT_EQ(operations[0].identity(), "tester");
  EXPECT_EQ(operations[3].reason(), "");
  EXPECT_EQ(operations[8].identity(), "boss");
}

TEST(ClientRepair, OnlyWhatMayBeDoneTwiceIsSentTwice) {
  FakeService service;
  const Client client = Connected(service);
  const RawRun run = client.AttachRaw("chart-17");
  service.Fail("Operate", {Unavailable()});
  EXPECT_TRUE(run.Pause().ok());
  EXPECT_EQ(service.calls("Operate"), 2);
  service.Fail("Operate", {Unavailable()});
  const absl::Status rewound = run.Rewind("merge").status();
  EXPECT_EQ(rewound.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(rewound.message()), HasSubstr("it may have been done"));
  EXPECT_EQ(service.calls("Operate"), 3);
  service.Fail("Operate", {{grpc::StatusCode::FAILED_PRECONDITION, "step merge has not run"}});
  const absl::Status refused = run.Rewind("merge").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), Not(HasSubstr("it may have been done")));
}

TEST(ClientRepair, WhatIsSentOnceWaitsForTheCoordinatorFirst) {
  int port = 0;
  { port = FakeService().port(); }
  ClientOptions options = Fast();
  options.connect_timeout = absl::ZeroDuration();
  options.deadline = absl::Milliseconds(300);
  const auto client = Client::Connect("127.0.0.1:" + std::to_string(port), options);
  ASSERT_TRUE(client.ok()) << client.status();
  const absl::Status status = client->AttachRaw("chart-17").Rewind("merge").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("it may have been done")));
}

}  // namespace
}  // namespace flux
