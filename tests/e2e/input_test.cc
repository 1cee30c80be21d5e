// Bad input over gRPC: each gets a status and a message that names the thing and the way out, and
// changes nothing.
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "flux/client.h"
#include "flux/v1/bulk.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Code = absl::StatusCode;

constexpr size_t kPayloadMax = 64 * 1024;

// A definition whose steps call a task each, one after the other.
v1::Definition Line(const std::string& name, const std::vector<std::string>& steps) {
  v1::Definition definition;
  definition.set_name(name);
  definition.set_format(1);
  v1::Scope* scope = definition.add_scopes();
  scope->set_parameters(1);
  for (size_t i = 0; i < steps.size(); ++i) {
    v1::Step* step = scope->add_steps();
    step->set_name(steps[i]);
    step->set_location(absl::StrCat("here.cc:", i + 1));
    step->mutable_task()->set_task("e2e.add-one");
    if (i == 0) {
      step->add_inputs()->set_parameter(0);
    } else {
      step->add_inputs()->set_step(static_cast<uint32_t>(i - 1));
    }
  }
  scope->mutable_result()->set_step(static_cast<uint32_t>(steps.size() - 1));
  return definition;
}

class BadInput : public EndToEnd {
 protected:
  void SetUp() override {
    SetFlags({{"payload-bytes-max", absl::StrCat(kPayloadMax)},
              {"session-grace", "10m"},
              {"ping-interval", "1m"}});
    StartFluxd();
    StartWorker({.id = "w"});
    for (const v1::Definition& definition :
         {DefinitionOf(kChain), DefinitionOf(kGated), DefinitionOf(kWide)}) {
      auto hash = api().Put(definition);
      ASSERT_TRUE(hash.ok()) << hash.status();
    }
    ASSERT_TRUE(api().Start(StartOf(kChain, "done", int64_t{1})).ok());
    ASSERT_TRUE(api().AwaitClosed(Ref("done")).ok());
    auto open = api().Start(StartOf(kGated, "open", std::string("gate")));
    ASSERT_TRUE(open.ok()) << open.status();
    open_run_ = open->run_id();
    ledger_.Await({.event = "begin", .workflow_id = "open"});
  }

  // Everything there is.
  std::string Picture() {
    auto list = api().List();
    auto count = api().Count();
    EXPECT_TRUE(list.ok()) << list.status();
    EXPECT_TRUE(count.ok()) << count.status();
    if (!list.ok() || !count.ok()) return "";
    std::string picture = absl::StrCat(*count, " executions\n");
    for (const v1::ExecutionInfo& info : *list) picture += info.DebugString();
    grpc::ClientContext context;
    v1::ListDefinitionsResponse definitions;
    const grpc::Status status =
        api().workflows().ListDefinitions(&context, v1::ListDefinitionsRequest(), &definitions);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return picture + definitions.DebugString();
  }

  struct Case {
    std::string name;
    std::function<absl::Status()> call;
    Code code;
    std::vector<std::string> words;
  };
  void Expect(const std::vector<Case>& cases) {
    std::string before = Picture();
    for (const Case& c : cases) {
      SCOPED_TRACE(c.name);
      const absl::Status status = c.call();
      EXPECT_EQ(status.code(), c.code) << status;
      for (const std::string& word : c.words) {
        EXPECT_THAT(std::string(status.message()), HasSubstr(word));
      }
      const std::string after = Picture();
      EXPECT_TRUE(after == before) << "it changed something; there is now:\n" << after;
      before = after;
    }
    // And all goes on as ever.
    auto started = api().Start(StartOf(kChain, "afterwards", int64_t{5}));
    ASSERT_TRUE(started.ok()) << started.status();
    auto result = api().AwaitClosed(Ref("afterwards"));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->result().data(), "9");
  }

  std::function<absl::Status()> Putting(v1::Definition definition) {
    return [this, definition = std::move(definition)] { return api().Put(definition).status(); };
  }
  std::function<absl::Status()> Changing(const std::function<void(v1::Definition*)>& change) {
    v1::Definition definition = Line("bad", {"one", "two", "three"});
    change(&definition);
    return Putting(std::move(definition));
  }
  std::function<absl::Status()> Starting(
      const std::function<void(v1::StartWorkflowRequest*)>& change) {
    v1::StartWorkflowRequest request = StartOf(kChain, "new", int64_t{1});
    change(&request);
    return [this, request = std::move(request)] { return api().Start(request).status(); };
  }

  std::string open_run_;
};

TEST_F(BadInput, Definitions) {
  const auto step = [](v1::Definition* d, int i) { return d->mutable_scopes(0)->mutable_steps(i); };
  Expect({
      {"a cycle",
       Changing([&](auto* d) { step(d, 1)->mutable_inputs(0)->set_step(2); }),
       Code::kInvalidArgument,
       {"two", "here.cc:2", "cycle", "three"}},
      {"a step that reads itself",
       Changing([&](auto* d) { step(d, 1)->mutable_inputs(0)->set_step(1); }),
       Code::kInvalidArgument,
       {"two", "cycle"}},
      {"an order that is a cycle",
       Changing([&](auto* d) { step(d, 0)->add_after(2); }),
       Code::kInvalidArgument,
       {"one", "three", "cycle"}},
      {"an unknown step",
       Changing([&](auto* d) { step(d, 1)->mutable_inputs(0)->set_step(9); }),
       Code::kInvalidArgument,
       {"two", "step 9", "only 3"}},
      {"an unknown parameter",
       Changing([&](auto* d) { step(d, 0)->mutable_inputs(0)->set_parameter(4); }),
       Code::kInvalidArgument,
       {"one", "parameter 4", "only 1"}},
      {"an input from nowhere",
       Changing([&](auto* d) { step(d, 1)->mutable_inputs(0)->Clear(); }),
       Code::kInvalidArgument,
       {"two", "nowhere"}},
      {"two steps of one name",
       Changing([&](auto* d) { step(d, 2)->set_name("one"); }),
       Code::kInvalidArgument,
       {"one", "here.cc:3", "here.cc:1", "Named"}},
      {"no result",
       Changing([](auto* d) { d->mutable_scopes(0)->clear_result(); }),
       Code::kInvalidArgument,
       {"bad", "no result", "return"}},
      {"an unknown result",
       Changing([](auto* d) { d->mutable_scopes(0)->mutable_result()->set_step(7); }),
       Code::kInvalidArgument,
       {"result", "step 7"}},
      {"no steps and no scopes",
       Changing([](auto* d) { d->clear_scopes(); }),
       Code::kInvalidArgument,
       {"bad", "no scopes"}},
      {"no definition at all", Putting(v1::Definition()), Code::kInvalidArgument, {"name"}},
      {"no name", Changing([](auto* d) { d->clear_name(); }), Code::kInvalidArgument, {"name"}},
      {"a name that is too long",
       Changing([](auto* d) { d->set_name(std::string(300, 'n')); }),
       Code::kInvalidArgument,
       {"300 bytes", "256"}},
      {"a name with a control character",
       Changing([](auto* d) { d->set_name("a\nb"); }),
       Code::kInvalidArgument,
       {"a\\nb", "control character"}},
      {"a step without a name",
       Changing([&](auto* d) { step(d, 1)->clear_name(); }),
       Code::kInvalidArgument,
       {"step 1 of scope 0", "here.cc:2", "empty"}},
      {"a step without a kind",
       Changing([&](auto* d) { step(d, 1)->clear_task(); }),
       Code::kInvalidArgument,
       {"two", "kind"}},
      {"a task without a name",
       Changing([&](auto* d) { step(d, 1)->mutable_task()->clear_task(); }),
       Code::kInvalidArgument,
       {"two", "task's name"}},
      {"a timeout below zero",
       Changing(
           [&](auto* d) { step(d, 1)->mutable_task()->mutable_timeouts()->set_heartbeat_ms(-1); }),
       Code::kInvalidArgument,
       {"two", "heartbeat", "-1 ms"}},
      {"a factor below one",
       Changing(
           [&](auto* d) { step(d, 1)->mutable_task()->mutable_retry()->set_factor_permille(500); }),
       Code::kInvalidArgument,
       {"two", "500"}},
      {"a pointer that is none",
       Changing([&](auto* d) { step(d, 1)->mutable_inputs(0)->set_pointer("a/b"); }),
       Code::kInvalidArgument,
       {"two", "a/b", "JSON pointer"}},
      {"a literal that is not JSON",
       Changing(
           [&](auto* d) { *step(d, 1)->mutable_inputs(0)->mutable_literal() = Json("{\"a\""); }),
       Code::kInvalidArgument,
       {"two", "literal"}},
      {"a map without a body",
       Changing([&](auto* d) { step(d, 1)->mutable_map()->set_body(3); }),
       Code::kInvalidArgument,
       {"two", "scope 3"}},
      {"a map that is its own body",
       Changing([&](auto* d) { step(d, 1)->mutable_map()->set_body(0); }),
       Code::kInvalidArgument,
       {"two", "scope 0"}},
      {"a scope that belongs to no step",
       Changing([](auto* d) { d->add_scopes(); }),
       Code::kInvalidArgument,
       {"scope 1", "remove"}},
      {"a format to come",
       Changing([](auto* d) { d->set_format(99); }),
       Code::kInvalidArgument,
       {"format 99", "upgrade"}},
      {"more steps than allowed",
       Putting(Line("long",
                    [] {
                      std::vector<std::string> names;
                      for (int i = 0; i < 50'001; ++i) names.push_back(absl::StrCat("s", i));
                      return names;
                    }())),
       Code::kResourceExhausted,
       {"long", "50001", "50000"}},
  });
}

TEST_F(BadInput, Starts) {
  Expect({
      {"an unknown workflow",
       Starting([](auto* r) { r->set_workflow("chian"); }),
       Code::kNotFound,
       {"\"chian\"", "definition"}},
      {"an unknown version",
       Starting([](auto* r) { r->set_version("99"); }),
       Code::kNotFound,
       {"chain", "\"99\"", "it has"}},
      {"an unknown definition",
       Starting([](auto* r) { r->set_definition_hash(std::string(32, '\x17')); }),
       Code::kNotFound,
       {"1717", "PutDefinition"}},
      {"no workflow",
       Starting([](auto* r) { r->clear_workflow(); }),
       Code::kNotFound,
       {"workflow"}},
      {"too few inputs",
       Starting([](auto* r) { r->clear_inputs(); }),
       Code::kInvalidArgument,
       {"chain", "takes 1", "0"}},
      {"too many inputs",
       Starting([](auto* r) { *r->add_inputs() = JsonNumber(2); }),
       Code::kInvalidArgument,
       {"chain", "takes 1", "2"}},
      {"an input over the limit",
       Starting([](auto* r) {
         *r->mutable_inputs(0) = Json(absl::StrCat("\"", std::string(kPayloadMax - 1, 'x'), "\""));
       }),
       Code::kResourceExhausted,
       {"input 0", "65537", "65536", "fluxd's payload-bytes-max", "reference", "raise it"}},
      {"an input that is not JSON",
       Starting([](auto* r) { *r->mutable_inputs(0) = Json("{\"a\": 1"); }),
       Code::kInvalidArgument,
       {"input 0", "JSON"}},
      {"an input that a map cannot read",
       [this] {
         v1::StartWorkflowRequest request = StartOf(kWide, "new", std::vector<int64_t>{1});
         *request.mutable_inputs(0) = Json("{\"no\": \"list\"}");
         return api().Start(request).status();
       },
       Code::kInvalidArgument,
       {"all", "array"}},
      {"a workflow id that is in use",
       Starting([](auto* r) { r->set_workflow_id("open"); }),
       Code::kAlreadyExists,
       {"\"open\"", open_run_, "gated", "another id"}},
      {"a workflow id that was used, where the policy forbids it",
       Starting([](auto* r) {
         r->set_workflow_id("done");
         r->set_reuse_policy(v1::REUSE_POLICY_REJECT);
       }),
       Code::kAlreadyExists,
       {"\"done\"", "closed", "another id"}},
      {"a workflow id that completed, where only failures may be repeated",
       Starting([](auto* r) {
         r->set_workflow_id("done");
         r->set_reuse_policy(v1::REUSE_POLICY_ALLOW_IF_FAILED);
       }),
       Code::kAlreadyExists,
       {"\"done\""}},
      {"an id with a control character",
       Starting([](auto* r) { r->set_workflow_id("a\tb"); }),
       Code::kInvalidArgument,
       {"workflow id", "0x09", "byte 1", "printable"}},
      {"an id with a zero byte",
       Starting([](auto* r) { r->set_workflow_id(std::string("a\0b", 3)); }),
       Code::kInvalidArgument,
       {"workflow id", "0x00"}},
      {"an id that is too long",
       Starting([](auto* r) { r->set_workflow_id(std::string(257, 'i')); }),
       Code::kInvalidArgument,
       {"workflow id", "257", "256", "shorter"}},
      {"a namespace that is too long",
       Starting([](auto* r) { r->set_namespace_(std::string(257, 'i')); }),
       Code::kInvalidArgument,
       {"namespace", "257"}},
      {"a request id with a control character",
       Starting([](auto* r) { r->set_request_id("\x7f"); }),
       Code::kInvalidArgument,
       {"request id", "0x7f"}},
      {"too many labels",
       Starting([](auto* r) {
         for (int i = 0; i < 65; ++i) (*r->mutable_labels())[absl::StrCat("l", i)] = "v";
       }),
       Code::kInvalidArgument,
       {"65 labels", "64"}},
      {"a label that is too long",
       Starting([](auto* r) { (*r->mutable_labels())["team"] = std::string(300, 'v'); }),
       Code::kInvalidArgument,
       {"team", "300"}},
      {"a timeout below zero",
       Starting([](auto* r) { r->set_execution_timeout_ms(-5); }),
       Code::kInvalidArgument,
       {"execution_timeout_ms is -5"}},
      {"a timeout beyond all bounds",
       Starting([](auto* r) { r->set_execution_timeout_ms(INT64_MAX); }),
       Code::kInvalidArgument,
       {"execution_timeout_ms is 9223372036854775807", "0 (none) to"}},
  });
}

TEST_F(BadInput, Questions) {
  const auto each = [this](const std::string& what, const v1::ExecutionRef& ref, Code code,
                           const std::vector<std::string>& words) {
    return std::vector<Case>{
        {what + ", described", [=, this] { return api().Describe(ref).status(); }, code, words},
        {what + ", its result", [=, this] { return api().Result(ref).status(); }, code, words},
        {what + ", its history", [=, this] { return api().History(ref).status(); }, code, words},
        {what + ", verified", [=, this] { return api().Verify(ref).status(); }, code, words},
        {what + ", cancelled", [=, this] { return api().Cancel(ref, "why not"); }, code, words},
        {what + ", terminated", [=, this] { return api().Terminate(ref, "why not"); }, code, words},
        {what + ", watched",
         [=, this] {
           grpc::ClientContext context;
           v1::WatchExecutionRequest request;
           *request.mutable_execution() = ref;
           auto stream = api().workflows().WatchExecution(&context, request);
           v1::WatchExecutionResponse response;
           EXPECT_FALSE(stream->Read(&response));
           return FromGrpc(stream->Finish());
         },
         code, words},
    };
  };
  v1::ExecutionRef elsewhere = Ref("open");
  elsewhere.set_namespace_("elsewhere");
  std::vector<Case> cases;
  for (const auto& more : {
           each("an unknown id", Ref("nobody"), Code::kNotFound,
                {"\"nobody\"", "default", "check both", "retention"}),
           each("an unknown run", Ref("open", std::string(32, '1')), Code::kNotFound,
                {std::string(32, '1')}),
           each("another id's run", Ref("done", open_run_), Code::kNotFound, {open_run_}),
           each("another namespace", elsewhere, Code::kNotFound, {"\"open\"", "elsewhere"}),
           each("no id", Ref(""), Code::kInvalidArgument, {"workflow id is empty"}),
           each("a bad run id", Ref("open", "123"), Code::kInvalidArgument,
                {"\"123\"", "32 lower-case hexadecimal"}),
           each("a control character", Ref("a\nb"), Code::kInvalidArgument,
                {"workflow id", "0x0a"}),
           each("an id that is too long", Ref(std::string(10'000, 'x')), Code::kInvalidArgument,
                {"workflow id", "10000"}),
       }) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  cases.push_back({"a closed execution cancelled",
                   [this] { return api().Cancel(Ref("done"), "too late"); },
                   Code::kFailedPrecondition,
                   {"done", "COMPLETED"}});
  cases.push_back({"a closed execution terminated",
                   [this] { return api().Terminate(Ref("done"), "too late"); },
                   Code::kFailedPrecondition,
                   {"done", "COMPLETED"}});
  cases.push_back({"an unknown queue",
                   [this] { return api().Queue("nowhere").status(); },
                   Code::kNotFound,
                   {"\"nowhere\"", "default"}});
  // Longer than the metadata of an answer may be, and each byte three in it.
  std::string long_name;
  for (int i = 0; i < 10'000; ++i) long_name += "é";
  cases.push_back({"an unknown queue with a long name",
                   [this, long_name] { return api().Queue(long_name).status(); },
                   Code::kNotFound,
                   {"no task queue \"éé", "é…"}});
  cases.push_back({"an unknown workflow with a long name",
                   Starting([long_name](auto* r) { r->set_workflow(long_name); }),
                   Code::kNotFound,
                   {"unknown workflow \"éé", "é…"}});
  cases.push_back({"a page token of another list",
                   [this] {
                     grpc::ClientContext context;
                     v1::ListExecutionsRequest request;
                     request.set_page_token("not one");
                     v1::ListExecutionsResponse response;
                     return FromGrpc(
                         api().workflows().ListExecutions(&context, request, &response));
                   },
                   Code::kInvalidArgument,
                   {"page token"}});
  cases.push_back({"a page token of another history",
                   [this] {
                     grpc::ClientContext context;
                     v1::GetHistoryRequest request;
                     *request.mutable_execution() = Ref("done");
                     request.set_page_token("not one");
                     v1::GetHistoryResponse response;
                     return FromGrpc(api().workflows().GetHistory(&context, request, &response));
                   },
                   Code::kInvalidArgument,
                   {"page token"}});
  Expect(cases);
}

TEST_F(BadInput, EventsAndOperations) {
  const std::string over(kPayloadMax + 1, '7');
  std::vector<Case> cases;
  const auto event = [&](std::string name, const std::function<void(v1::SendEventRequest*)>& change,
                         Code code, std::vector<std::string> words) {
    v1::SendEventRequest request;
    *request.mutable_execution() = Ref("open");
    request.set_event("go");
    *request.mutable_payload() = Json("1");
    change(&request);
    cases.push_back({absl::StrCat("event: ", name),
                     [this, request = std::move(request)] {
                       grpc::ClientContext context;
                       v1::SendEventResponse response;
                       return FromGrpc(api().workflows().SendEvent(&context, request, &response));
                     },
                     code, std::move(words)});
  };
  event("no name", [](auto* r) { r->clear_event(); }, Code::kInvalidArgument,
        {"event's name is empty"});
  event("one that nobody awaits", [](auto*) {}, Code::kInvalidArgument,
        {"gated waits for no event \"go\""});
  event("a control character", [](auto* r) { r->set_event("a\nb"); }, Code::kInvalidArgument,
        {"event's name", "0x0a", "printable"});
  event("an id that is too long", [](auto* r) { r->set_event_id(std::string(10'000, 'x')); },
        Code::kInvalidArgument, {"event id has 10000 bytes", "shorter"});
  event("a time before there was time", [](auto* r) { r->set_deliver_time_ms(-1); },
        Code::kInvalidArgument, {"delivery time", "1970"});
  event("a payload over the limit", [&](auto* r) { *r->mutable_payload() = Json(over); },
        Code::kResourceExhausted,
        {"the event's payload has 65537 bytes", "65536", "payload-bytes-max", "reference"});
  event("a payload that is no JSON", [](auto* r) { *r->mutable_payload() = Json("{"); },
        Code::kInvalidArgument, {"the event's payload", "JSON"});
  event("an identity that is none", [](auto* r) { r->set_identity("a\nb"); },
        Code::kInvalidArgument, {"identity", "0x0a"});
  event("to one that has closed", [](auto* r) { *r->mutable_execution() = Ref("done"); },
        Code::kFailedPrecondition, {"done", "COMPLETED", "no more events"});

  // Of an operation on one execution, and on all that a query finds.
  struct BadOperation {
    std::string name;
    std::function<void(v1::Operation*)> change;
    Code code;
    std::vector<std::string> words;
  };
  const std::string nowhere(32, '\x07');
  const std::vector<BadOperation> operations = {
      {"none", [](auto*) {}, Code::kInvalidArgument, {"no operation is given", "such as retry"}},
      {"one of a later version",
       // Field 500, a varint.
       [](auto* o) { EXPECT_TRUE(o->ParseFromString("\xa0\x1f\x01")); },
       Code::kInvalidArgument,
       {"not one this server version knows", "upgrade"}},
      {"a step to park without a name",
       [](auto* o) { o->mutable_park(); },
       Code::kInvalidArgument,
       {"which step to park is empty", "workflow show"}},
      {"a step to unpark without a name",
       [](auto* o) { o->mutable_unpark(); },
       Code::kInvalidArgument,
       {"which step to unpark is empty", "workflow show"}},
      {"a step to skip without a name",
       [](auto* o) { o->mutable_skip(); },
       Code::kInvalidArgument,
       {"which step to skip is empty"}},
      {"a step to rewind to without a name",
       [](auto* o) { o->mutable_rewind(); },
       Code::kInvalidArgument,
       {"which step to rewind to is empty"}},
      {"a result of no step",
       [](auto* o) { *o->mutable_set_result()->mutable_result() = Json("1"); },
       Code::kInvalidArgument,
       {"which step to set the result of is empty"}},
      {"a result that is no JSON",
       [](auto* o) {
         o->mutable_set_result()->set_step("wait");
         *o->mutable_set_result()->mutable_result() = Json("[1");
       },
       Code::kInvalidArgument,
       {"the result of step \"wait\"", "JSON"}},
      {"a result over the limit",
       [&](auto* o) {
         o->mutable_set_result()->set_step("wait");
         *o->mutable_set_result()->mutable_result() = Json(over);
       },
       Code::kResourceExhausted,
       {"the result of step \"wait\" has 65537 bytes", "payload-bytes-max"}},
      {"no event to cancel",
       [](auto* o) { o->mutable_cancel_event(); },
       Code::kInvalidArgument,
       {"event id is empty"}},
      {"no event to edit",
       [](auto* o) { *o->mutable_edit_event()->mutable_payload() = Json("1"); },
       Code::kInvalidArgument,
       {"event's name is empty"}},
      {"an edited payload that is no JSON",
       [](auto* o) {
         o->mutable_edit_event()->set_event("go");
         *o->mutable_edit_event()->mutable_payload() = Json("tru");
       },
       Code::kInvalidArgument,
       {"the payload of event \"go\"", "JSON"}},
      {"an edited payload over the limit",
       [&](auto* o) {
         o->mutable_edit_event()->set_event("go");
         *o->mutable_edit_event()->mutable_payload() = Json(over);
       },
       Code::kResourceExhausted,
       {"the payload of event \"go\" has 65537 bytes"}},
      {"a replayed payload that is no JSON",
       [](auto* o) {
         o->mutable_replay_event()->set_event("go");
         *o->mutable_replay_event()->mutable_payload() = Json("");
       },
       Code::kInvalidArgument,
       {"the payload of event \"go\"", "JSON"}},
      {"no event to replay",
       [](auto* o) { o->mutable_replay_event(); },
       Code::kInvalidArgument,
       {"event's name is empty"}},
      {"a definition that there is not",
       [&](auto* o) { o->mutable_migrate()->set_definition_hash(nowhere); },
       Code::kNotFound,
       {"definition", "0707070707"}},
  };
  const auto operate = [&](std::string name,
                           const std::function<void(v1::OperateExecutionRequest*)>& change,
                           Code code, std::vector<std::string> words) {
    v1::OperateExecutionRequest request;
    *request.mutable_execution() = Ref("open");
    change(&request);
    cases.push_back({absl::StrCat("operation: ", name),
                     [this, request = std::move(request)] {
                       grpc::ClientContext context;
                       v1::OperateExecutionResponse response;
                       return FromGrpc(
                           api().workflows().OperateExecution(&context, request, &response));
                     },
                     code, std::move(words)});
  };
  const auto stub = v1::BulkService::NewStub(api().channel());
  const auto bulk = [&](std::string name,
                        const std::function<void(v1::StartBulkOperationRequest*)>& change,
                        Code code, const std::vector<std::string>& words) {
    v1::StartBulkOperationRequest request;
    request.mutable_filter()->set_query("status = \"running\"");
    change(&request);
    for (const bool preview : {true, false}) {
      request.set_preview(preview);
      cases.push_back({absl::StrCat("bulk ", preview ? "preview: " : "operation: ", name),
                       [&stub, request] {
                         grpc::ClientContext context;
                         v1::StartBulkOperationResponse response;
                         return FromGrpc(stub->StartBulkOperation(&context, request, &response));
                       },
                       code, words});
    }
  };
  for (const BadOperation& o : operations) {
    operate(
        o.name, [&](auto* r) { o.change(r->mutable_operation()); }, o.code, o.words);
    bulk(
        o.name, [&](auto* r) { o.change(r->mutable_operation()); }, o.code, o.words);
  }
  operate("a step that there is not",
          [](auto* r) { r->mutable_operation()->mutable_park()->set_step("nothing"); },
          Code::kNotFound, {"open", "\"nothing\"", "workflow show"});
  operate("a step to unpark that there is not",
          [](auto* r) { r->mutable_operation()->mutable_unpark()->set_step("nothing"); },
          Code::kNotFound, {"open", "\"nothing\"", "workflow show"});
  operate("a reason over the limit",
          [&](auto* r) {
            r->mutable_operation()->mutable_pause();
            r->set_reason(over);
          },
          Code::kInvalidArgument, {"the reason has 65537 bytes", "65536"});
  bulk("a reason over the limit",
       [&](auto* r) {
         r->mutable_operation()->mutable_pause();
         r->set_reason(over);
       },
       Code::kInvalidArgument, {"operation and reason have", "65436"});
  const auto unnamed = [](auto* r) {
    r->mutable_operation()->mutable_pause();
    r->set_identity("a\nb");
  };
  operate("an identity that is none", unnamed, Code::kInvalidArgument, {"identity", "0x0a"});
  bulk("an identity that is none", unnamed, Code::kInvalidArgument, {"identity", "0x0a"});
  bulk("a query that is none",
       [](auto* r) {
         r->mutable_operation()->mutable_pause();
         r->mutable_filter()->set_query("tenant = 1");
       },
       Code::kInvalidArgument, {"position 1", "\"tenant\"", "label.<name>"});
  bulk("everything there is",
       [](auto* r) {
         r->mutable_operation()->mutable_pause();
         r->clear_filter();
       },
       Code::kInvalidArgument, {"matches everything", "started <= now"});
  bulk("a rate beyond all",
       [](auto* r) {
         r->mutable_operation()->mutable_pause();
         r->set_rate_per_second(1'000'000);
       },
       Code::kInvalidArgument, {"rate_per_second is 1000000", "10000"});
  Expect(cases);
  grpc::ClientContext context;
  v1::ListBulkOperationsResponse begun;
  const absl::Status listed =
      FromGrpc(stub->ListBulkOperations(&context, v1::ListBulkOperationsRequest(), &begun));
  EXPECT_TRUE(listed.ok()) << listed;
  EXPECT_THAT(begun.operations(), IsEmpty());
}

TEST_F(BadInput, BytesThatAreNoMessage) {
  const auto raw = [this](const std::string& method, const std::string& bytes) {
    return [=, this] { return FromGrpc(api().CallRaw(method, bytes).status); };
  };
  const std::string garbage = "\xff\xff\xff\xff\xff garbage";
  Expect({
      {"a start",
       raw("/flux.v1.WorkflowService/StartWorkflow", garbage),
       Code::kInvalidArgument,
       {"/flux.v1.WorkflowService/StartWorkflow", "cannot be decoded"}},
      {"a definition",
       raw("/flux.v1.WorkflowService/PutDefinition", garbage),
       Code::kInvalidArgument,
       {"PutDefinition", "cannot be decoded"}},
      {"a stream of progress",
       raw("/flux.v1.WorkflowService/WatchExecution", garbage),
       Code::kInvalidArgument,
       {"WatchExecution", "cannot be decoded"}},
      {"a question",
       raw("/flux.v1.AdminService/VerifyExecution", garbage),
       Code::kInvalidArgument,
       {"VerifyExecution", "cannot be decoded"}},
      {"a worker's hello",
       raw("/flux.v1.WorkerService/Connect", garbage),
       Code::kInvalidArgument,
       {"hello", "first message"}},
      {"an unknown method",
       raw("/flux.v1.WorkflowService/MakeCoffee", ""),
       Code::kUnimplemented,
       {}},
      {"a message over gRPC's limit",
       raw("/flux.v1.WorkflowService/StartWorkflow", std::string(65u << 20, 'x')),
       Code::kResourceExhausted,
       {}},
  });
}

TEST_F(BadInput, Hellos) {
  struct HelloCase {
    const char* name;
    std::function<void(v1::WorkerHello*)> change;
    Code code;
    std::vector<std::string> words;
  };
  const std::vector<HelloCase> cases = {
      {"no worker id",
       [](auto* h) { h->clear_worker_id(); },
       Code::kInvalidArgument,
       {"worker_id", "empty"}},
      {"no session id",
       [](auto* h) { h->clear_session_id(); },
       Code::kInvalidArgument,
       {"session_id", "empty"}},
      {"no tasks", [](auto* h) { h->clear_tasks(); }, Code::kInvalidArgument, {"liar", "no tasks"}},
      {"no slots", [](auto* h) { h->set_slots(0); }, Code::kInvalidArgument, {"liar", "0 slots"}},
      {"a control character",
       [](auto* h) { h->set_queue("a\nb"); },
       Code::kInvalidArgument,
       {"queue", "control character"}},
      {"an id that is too long",
       [](auto* h) { h->set_worker_id(std::string(10'000, 'w')); },
       Code::kInvalidArgument,
       {"worker_id", "10000"}},
      {"a claim with half a run id",
       [](auto* h) { h->add_running()->mutable_token()->set_run_id("half"); },
       Code::kInvalidArgument,
       {"liar", "4 bytes", "16"}},
  };
  const std::string before = Picture();
  for (const HelloCase& c : cases) {
    SCOPED_TRACE(c.name);
    RawWorker worker(api());
    v1::WorkerHello hello = RawWorker::HelloOf("liar", {"t"});
    c.change(&hello);
    worker.Hello(hello, 1);
    const absl::Status status = worker.AwaitEnd();
    EXPECT_EQ(status.code(), c.code) << status;
    for (const std::string& word : c.words) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(word));
    }
  }
  {
    SCOPED_TRACE("no hello");
    RawWorker worker(api());
    worker.Credit(1);
    const absl::Status status = worker.AwaitEnd();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("hello"));
  }
  {
    SCOPED_TRACE("two hellos");
    RawWorker worker(api());
    worker.Hello(RawWorker::HelloOf("twice", {"t"}));
    worker.AwaitWelcome();
    worker.Hello(RawWorker::HelloOf("twice", {"t"}));
    const absl::Status status = worker.AwaitEnd();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("second"));
  }
  {
    SCOPED_TRACE("more credit than there is");
    RawWorker worker(api());
    worker.Hello(RawWorker::HelloOf("greedy", {"t"}), UINT32_MAX);
    const absl::Status status = worker.AwaitEnd();
    EXPECT_EQ(status.code(), Code::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("greedy"), HasSubstr("credit"), HasSubstr("100000")));
  }
  EXPECT_EQ(Picture(), before);
  auto workers = api().Workers();
  ASSERT_TRUE(workers.ok()) << workers.status();
  for (const v1::WorkerInfo& worker : *workers) EXPECT_NE(worker.worker_id(), "liar");
}

constexpr flux::Workflow<int64_t(int64_t)> kUnknownTask{
    "unknown-task", {}, [](flux::Graph& g, Integer n) {
      return g.Call(kNobody, n).Named("lonely").Queue("far-away");
    }};

TEST_F(BadInput, ATaskThatNobodyHasWaitsAndSaysSo) {
  ASSERT_TRUE(api().Put(DefinitionOf(kUnknownTask)).ok());
  ASSERT_TRUE(api().Start(StartOf(kUnknownTask, "lonely", int64_t{1})).ok());
  auto step = api().DescribeStep(Ref("lonely"), "lonely");
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_EQ(step->state(), v1::STEP_STATE_SCHEDULED);
  EXPECT_EQ(step->reason(), "no worker has task e2e.nobody-has-it on queue far-away");
  auto queue = api().Queue("far-away");
  ASSERT_TRUE(queue.ok()) << queue.status();
  ASSERT_THAT(queue->queue().tasks(), SizeIs(1));
  EXPECT_EQ(queue->queue().tasks(0).workers(), 0u);
  EXPECT_EQ(queue->queue().ready(), 1u);
  // One that has it may come at any time.
  RawWorker worker(api());
  v1::WorkerHello hello = RawWorker::HelloOf("at-last", {std::string(kNobody.name())});
  hello.set_queue("far-away");
  worker.Hello(hello, 1);
  worker.Answer(worker.AwaitTask().token(), JsonNumber(7));
  auto result = api().AwaitClosed(Ref("lonely"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->result().data(), "7");
}

TEST_F(BadInput, AnAddressWhereNobodyAnswersIsNamed) {
  const ReservedPort nobody;
  auto client =
      flux::Client::Connect(nobody.target(), {.connect_timeout = absl::Milliseconds(200)});
  EXPECT_EQ(client.status().code(), Code::kUnavailable) << client.status();
  EXPECT_THAT(std::string(client.status().message()), HasSubstr(nobody.target()));
  // A call on a connection that was good once.
  auto good = flux::Client::Connect(fluxd_.target(), {.deadline = absl::Milliseconds(500)});
  ASSERT_TRUE(good.ok()) << good.status();
  KillFluxd();
  auto run = good->Start(kChain, {.id = "nobody-is-there"}, int64_t{1});
  EXPECT_EQ(run.status().code(), Code::kUnavailable) << run.status();
  EXPECT_THAT(std::string(run.status().message()), HasSubstr(fluxd_.target()));
}

}  // namespace
}  // namespace flux::e2e
