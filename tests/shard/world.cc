#include "tests/shard/world.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace flux::engine::testing {

World::World(EngineOptions options, store::MemoryOptions store)
    : options_(std::move(options)),
      store_options_(store),
      disk_(std::make_shared<store::MemoryDisk>(store::MemoryDiskOptions{.shards = 4})) {
  store_options_.manual = true;
}

World::~World() {
  jobs_.clear();
  engine_ = nullptr;
  if (store_ != nullptr) store_->Release();
}

absl::Status World::Open() {
  auto memory = store::MemoryStore::Open(disk_, store_options_);
  if (!memory.ok()) return memory.status();
  memory_ = memory->get();
  store_ = std::make_unique<store::FaultyStore>(*std::move(memory));
  fatal_ = absl::OkStatus();
  Engine::Environment environment;
  environment.store = store_.get();
  environment.clock = this;
  environment.background = this;
  environment.workers = this;
  environment.random = [this] {
    // splitmix64 (Steele, Lea, Flood 2014)
    uint64_t z = (random_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  };
  environment.on_fatal = [this](absl::Status status) { fatal_ = std::move(status); };
  auto engine = Engine::Open(options_, environment);
  if (!engine.ok()) {
    store_ = nullptr;
    return engine.status();
  }
  engine_ = *std::move(engine);
  return absl::OkStatus();
}

void World::Crash(store::CrashOptions crash) {
  memory_->Crash(crash);
  jobs_.clear();
  engine_ = nullptr;
  store_->Release();
  store_ = nullptr;
  for (auto& [id, stream] : streams_) {
    if (!stream.closed) stream.closed = absl::UnavailableError("crashed");
  }
}

bool World::RunJob() {
  if (jobs_.empty()) return false;
  auto job = std::move(jobs_.front());
  jobs_.pop_front();
  job();
  return true;
}

bool World::StepStore() { return memory_->Step(); }

void World::Settle() {
  for (int i = 0; i < 100'000; ++i) {
    if (!fatal_.ok()) return;
    Turn();
    bool moved = false;
    while (RunJob()) moved = true;
    while (StepStore()) moved = true;
    if (!moved && engine_->inbox().size() == 0) return;
  }
  FAIL() << "the engine does not come to rest";
}

void World::Advance(int64_t ms, int64_t step_ms) {
  Settle();
  while (ms > 0 && fatal_.ok()) {
    const int64_t step = std::min(ms, step_ms);
    now_ms_ += step;
    ms -= step;
    Settle();
  }
}

std::string World::Define(const v1::Definition& definition) {
  auto put = engine_->definitions().Put(definition, now_ms_);
  EXPECT_TRUE(put.ok()) << put.status();
  return put.ok() ? put->definition_hash() : "";
}

std::shared_ptr<std::optional<absl::StatusOr<v1::StartWorkflowResponse>>> World::PostStart(
    v1::StartWorkflowRequest request) {
  auto answer = std::make_shared<std::optional<absl::StatusOr<v1::StartWorkflowResponse>>>();
  engine_->Start(std::move(request), [answer](absl::StatusOr<v1::StartWorkflowResponse> got) {
    answer->emplace(std::move(got));
  });
  return answer;
}

absl::StatusOr<v1::StartWorkflowResponse> World::Start(v1::StartWorkflowRequest request) {
  auto answer = PostStart(std::move(request));
  Settle();
  if (!*answer) return absl::DeadlineExceededError("no answer");
  return **answer;
}

absl::StatusOr<v1::StartWorkflowResponse> World::Start(const std::string& workflow,
                                                       const std::string& id,
                                                       std::vector<std::string> json_inputs) {
  v1::StartWorkflowRequest request;
  request.set_workflow(workflow);
  request.set_workflow_id(id);
  for (const std::string& input : json_inputs) *request.add_inputs() = Json(input);
  return Start(std::move(request));
}

v1::GetResultResponse World::Result(const std::string& id) {
  v1::GetResultRequest request;
  request.mutable_execution()->set_workflow_id(id);
  auto result = Ask<v1::GetResultResponse>(
      [&](auto reply) { engine_->GetResult(request, std::move(reply)); });
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : v1::GetResultResponse();
}

v1::DescribeExecutionResponse World::Describe(const std::string& id) {
  v1::DescribeExecutionRequest request;
  request.mutable_execution()->set_workflow_id(id);
  request.set_payloads(true);
  auto response = Ask<v1::DescribeExecutionResponse>(
      [&](auto reply) { engine_->Describe(request, std::move(reply)); });
  EXPECT_TRUE(response.ok()) << response.status();
  return response.ok() ? *response : v1::DescribeExecutionResponse();
}

absl::StatusOr<v1::VerifyExecutionResponse> World::Verify(const std::string& id) {
  v1::VerifyExecutionRequest request;
  request.mutable_execution()->set_workflow_id(id);
  return Ask<v1::VerifyExecutionResponse>(
      [&](auto reply) { engine_->Verify(request, std::move(reply)); });
}

uint64_t World::Counter(const std::string& name) {
  auto info = Ask<v1::GetServerInfoResponse>([&](auto reply) { engine_->Info(std::move(reply)); });
  EXPECT_TRUE(info.ok() && info->counters().contains(name)) << name;
  return info->counters().at(name);
}

absl::StatusOr<v1::SendEventResponse> World::SendEvent(const std::string& id,
                                                       const std::string& event,
                                                       const std::string& json,
                                                       const std::string& event_id,
                                                       int64_t deliver_ms) {
  v1::SendEventRequest request;
  request.mutable_execution()->set_workflow_id(id);
  request.set_event(event);
  request.set_event_id(event_id);
  *request.mutable_payload() = Json(json);
  request.set_deliver_time_ms(deliver_ms);
  return Ask<v1::SendEventResponse>(
      [&](auto reply) { engine_->SendEvent(request, std::move(reply)); });
}

v1::ListEventsResponse World::Events(const std::string& id) {
  v1::ListEventsRequest request;
  request.mutable_execution()->set_workflow_id(id);
  auto events = Ask<v1::ListEventsResponse>(
      [&](auto reply) { engine_->ListEvents(request, std::move(reply)); });
  EXPECT_TRUE(events.ok()) << events.status();
  return events.ok() ? *events : v1::ListEventsResponse();
}

absl::StatusOr<v1::OperateExecutionResponse> World::Operate(const std::string& id,
                                                            const std::string& operation) {
  v1::OperateExecutionRequest request;
  request.mutable_execution()->set_workflow_id(id);
  request.set_identity("ann");
  request.set_reason("because");
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(operation, request.mutable_operation()))
      << operation;
  return Ask<v1::OperateExecutionResponse>(
      [&](auto reply) { engine_->Operate(request, std::move(reply)); });
}

std::vector<v1::HistoryEvent> World::History(const std::string& id) {
  v1::GetHistoryRequest request;
  request.mutable_execution()->set_workflow_id(id);
  request.set_payloads(true);
  std::vector<v1::HistoryEvent> events;
  do {
    auto page = Ask<v1::GetHistoryResponse>(
        [&](auto reply) { engine_->History(request, std::move(reply)); });
    EXPECT_TRUE(page.ok()) << page.status();
    if (!page.ok()) break;
    for (v1::HistoryEvent& event : *page->mutable_events()) events.push_back(std::move(event));
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return events;
}

void World::Pass(StreamId worker, int64_t ms, bool work) {
  for (; ms > 0; ms -= 1'000) {
    Advance(std::min<int64_t>(ms, 1'000));
    if (work) RunWorker(worker);
    for (const uint64_t ping : std::exchange(stream(worker).pings, {})) {
      v1::ConnectRequest message;
      message.set_pong(ping);
      Message(worker, std::move(message));
    }
  }
  Settle();
}

v1::Task World::Take(StreamId id) {
  Settle();
  if (stream(id).tasks.empty()) {
    ADD_FAILURE() << "no task was handed out";
    return {};
  }
  v1::Task task = std::move(stream(id).tasks.front());
  stream(id).tasks.pop_front();
  return task;
}

StreamId World::Connect(const std::string& session, std::vector<std::string> tasks, uint32_t credit,
                        std::vector<v1::RunningTask> running, const std::string& queue) {
  const StreamId id = next_stream_++;
  streams_[id];
  engine_->OnWorkerOpen(id, "test");
  v1::ConnectRequest message;
  v1::WorkerHello* hello = message.mutable_hello();
  hello->set_worker_id("worker-" + session);
  hello->set_session_id(session);
  hello->set_queue(queue);
  hello->set_slots(std::max(credit, 1u));
  for (std::string& task : tasks) hello->add_tasks(std::move(task));
  for (v1::RunningTask& task : running) *hello->add_running() = std::move(task);
  message.set_credit(credit);
  Message(id, std::move(message));
  return id;
}

void World::Disconnect(StreamId id) {
  if (!streams_[id].closed) streams_[id].closed = absl::CancelledError("disconnected");
  if (engine_ != nullptr) engine_->OnWorkerClosed(id);
}

void World::Message(StreamId id, v1::ConnectRequest message) {
  engine_->OnWorkerMessage(id, std::make_unique<v1::ConnectRequest>(std::move(message)));
}

void World::Answer(StreamId id, const v1::Task& task, const std::string& json) {
  v1::ConnectRequest message;
  v1::TaskResult* result = message.add_results();
  *result->mutable_token() = task.token();
  *result->mutable_value() = Json(json);
  message.set_credit(1);
  Message(id, std::move(message));
}

void World::AnswerFailure(StreamId id, const v1::Task& task, const std::string& type, bool final) {
  v1::ConnectRequest message;
  v1::TaskResult* result = message.add_results();
  *result->mutable_token() = task.token();
  result->mutable_failure()->set_type(type);
  result->mutable_failure()->set_message("it went wrong");
  result->mutable_failure()->set_non_retriable(final);
  message.set_credit(1);
  Message(id, std::move(message));
}

void World::RunWorker(StreamId id) {
  Settle();
  while (!stream(id).tasks.empty() && fatal_.ok()) {
    while (!stream(id).tasks.empty()) {
      const v1::Task task = std::move(stream(id).tasks.front());
      stream(id).tasks.pop_front();
      const bool echo =
          task.inputs_size() > 0 && task.inputs(0).payload().encoding() == v1::ENCODING_JSON;
      Answer(id, task, echo ? task.inputs(0).payload().data() : "1");
    }
    Settle();
  }
}

void World::Send(StreamId id, ArenaPtr<v1::ConnectResponse> message) {
  const auto it = streams_.find(id);
  if (it == streams_.end() || it->second.closed) return;
  Stream& stream = it->second;
  if (message->has_welcome()) stream.welcome = message->welcome();
  for (v1::Task& task : *message->mutable_tasks()) {
    ++handed_out_[task.token().SerializeAsString()];
    stream.tasks.push_back(std::move(task));
  }
  for (const v1::ResultAck& ack : message->acks()) stream.acks.push_back(ack);
  for (const v1::CancelTask& cancel : message->cancels()) stream.cancels.push_back(cancel);
  if (message->ping() != 0) stream.pings.push_back(message->ping());
  stream.goodbye = stream.goodbye || message->goodbye();
}

void World::Close(StreamId id, absl::Status why) {
  const auto it = streams_.find(id);
  if (it == streams_.end() || it->second.closed) return;
  it->second.closed = std::move(why);
  if (engine_ != nullptr) engine_->OnWorkerClosed(id);
}

v1::Payload Json(const std::string& text) {
  v1::Payload payload;
  payload.set_encoding(v1::ENCODING_JSON);
  payload.set_data(text);
  return payload;
}

v1::Definition Parse(const std::string& text) {
  v1::Definition definition;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &definition)) << text;
  definition.set_format(1);
  definition.set_version("1");
  return definition;
}

namespace {

v1::Step* AddTask(v1::Scope* scope, const std::string& name, const std::string& task) {
  v1::Step* step = scope->add_steps();
  step->set_name(name);
  step->mutable_task()->set_task(task);
  return step;
}

v1::Definition Empty(const std::string& name) {
  v1::Definition definition;
  definition.set_name(name);
  definition.set_version("1");
  definition.set_format(1);
  return definition;
}

}  // namespace

v1::Definition Chain(const std::string& name, int steps) {
  v1::Definition definition = Empty(name);
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  for (int i = 0; i < steps; ++i) {
    v1::Input* input = AddTask(scope, absl::StrCat("s", i), "t")->add_inputs();
    if (i == 0) {
      input->set_parameter(0);
    } else {
      input->set_step(i - 1);
    }
  }
  scope->mutable_result()->set_step(steps - 1);
  return definition;
}

v1::Definition MapAndSum(const std::string& name, uint32_t max_parallel) {
  v1::Definition definition = Empty(name);
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  v1::Step* map = scope->add_steps();
  map->set_name("map");
  map->add_inputs()->set_parameter(0);
  map->mutable_map()->set_body(1);
  map->mutable_map()->set_max_parallel(max_parallel);
  AddTask(scope, "sum", "sum")->add_inputs()->set_step(0);
  scope->mutable_result()->set_step(1);
  v1::Scope* body = definition.add_scopes();
  body->set_parameters(1);
  AddTask(body, "item", "t")->add_inputs()->set_parameter(0);
  body->mutable_result()->set_step(0);
  return definition;
}

size_t CountRows(World& world, keys::Table table) {
  size_t rows = 0;
  for (store::ShardId shard = 0; shard < world.store().shards(); ++shard) {
    const auto [begin, end] = keys::TableRange(shard, table);
    EXPECT_TRUE(world.store()
                    .rows()
                    .Scan(begin, end,
                          [&](std::string_view, std::string_view) {
                            ++rows;
                            return true;
                          })
                    .ok());
  }
  return rows;
}

v1::Definition Rounds(const std::string& name, uint64_t turns) {
  v1::Definition definition = Empty(name);
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  v1::Step* loop = scope->add_steps();
  loop->set_name("rounds");
  loop->add_inputs()->set_parameter(0);
  loop->mutable_loop()->set_body(1);
  loop->mutable_loop()->set_turns(turns);
  scope->mutable_result()->set_step(0);
  v1::Scope* body = definition.add_scopes();
  body->set_parameters(1);
  AddTask(body, "turn", "t")->add_inputs()->set_parameter(0);
  body->mutable_result()->set_step(0);
  return definition;
}

v1::Definition Nap(const std::string& name, int64_t sleep_ms) {
  v1::Definition definition = Empty(name);
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  v1::Step* sleep = scope->add_steps();
  sleep->set_name("nap");
  sleep->mutable_sleep()->set_duration_ms(sleep_ms);
  v1::Step* task = AddTask(scope, "work", "t");
  task->add_inputs()->set_parameter(0);
  task->add_after(0);
  scope->mutable_result()->set_step(1);
  return definition;
}

}  // namespace flux::engine::testing
