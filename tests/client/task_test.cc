#include <memory>
#include <string>
#include <vector>

#include "flux/task_set.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace flux {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Task<int64_t(int64_t, const std::string&)> kAdd{"add"};
constexpr Task<void(std::string)> kNote{"note"};
constexpr Task<std::string()> kBroken{"broken"};

class FakeContext : public TaskContext {
 public:
  uint32_t attempt() const override { return 3; }
  std::string workflow_id() const override { return "w"; }
  std::string run_id() const override { return "r"; }
  std::string step() const override { return "s"; }
  std::string fencing_token() const override { return "1.2"; }
  bool cancelled() const override { return false; }
  absl::Time deadline() const override { return absl::InfiniteFuture(); }
  void HeartbeatPayload(Payload progress) override { heartbeats.push_back(std::move(progress)); }
  Payload LastProgressPayload() const override { return last; }
  void LabelText(std::string key, std::string value) override { labels[key] = value; }
  void StepLabelText(std::string key, std::string value) override { step_labels[key] = value; }

  std::vector<Payload> heartbeats;
  Payload last;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> step_labels;
};

internal::RawOutcome Call(const TaskSet& tasks, std::string_view name,
                          std::vector<Payload> inputs) {
  FakeContext context;
  return (*tasks.Find(name))(context, std::move(inputs));
}

TEST(TaskSet, DecodesCallsAndEncodes) {
  TaskSet tasks;
  tasks.Register(kAdd, [](int64_t n, const std::string& text) { return n + std::stoll(text); });
  const auto outcome = Call(tasks, "add", {*Encode(int64_t{2}), *Encode(std::string("40"))});
  EXPECT_EQ(outcome.kind, internal::RawOutcome::Kind::kValue);
  EXPECT_EQ(outcome.value.data, "42");
  EXPECT_TRUE(tasks.status().ok());
  EXPECT_THAT(tasks.names(), ElementsAre("add"));
  EXPECT_EQ(tasks.Find("other"), nullptr);
}

TEST(TaskSet, TakesMoveOnlyFunctionsFunctionPointersAndEveryResult) {
  TaskSet tasks;
  auto owned = std::make_unique<int64_t>(5);
  tasks.Register(
      kAdd,
      [owned = std::move(owned)](TaskContext& context, int64_t n, std::string) -> Outcome<int64_t> {
        if (n == 0) return Skip{};
        if (n < 0) return absl::NotFoundError("below");
        return *owned + n + context.attempt();
      });
  tasks.Register(
      kNote, +[](std::string) -> absl::Status { return absl::OkStatus(); });
  const Payload text = *Encode(std::string());
  EXPECT_EQ(Call(tasks, "add", {*Encode(int64_t{1}), text}).value.data, "9");
  EXPECT_EQ(Call(tasks, "add", {*Encode(int64_t{0}), text}).kind,
            internal::RawOutcome::Kind::kSkip);
  EXPECT_EQ(Call(tasks, "add", {*Encode(int64_t{-1}), text}).failure.type, "flux.status.not_found");
  EXPECT_EQ(Call(tasks, "note", {text}).value.data, "null");
}

TEST(TaskSet, ReportsInputsAndResultsThatDoNotFitAsNonRetriable) {
  TaskSet tasks;
  tasks.Register(kAdd, [](int64_t n, const std::string&) { return n; });
  tasks.Register(kBroken, [] { return std::string("\xFF"); });
  const auto few = Call(tasks, "add", {*Encode(int64_t{2})});
  EXPECT_EQ(few.failure.type, "flux.task.bad_input");
  EXPECT_THAT(few.failure.message, HasSubstr("takes 2 inputs, was given 1"));
  EXPECT_TRUE(few.failure.non_retriable);
  const auto wrong = Call(tasks, "add", {*Encode(int64_t{2}), *Encode(int64_t{2})});
  EXPECT_EQ(wrong.failure.type, "flux.task.bad_input");
  EXPECT_THAT(wrong.failure.message, HasSubstr("input 2 cannot be read: expected a text, got 2"));
  const auto result = Call(tasks, "broken", {});
  EXPECT_EQ(result.failure.type, "flux.task.bad_result");
  EXPECT_TRUE(result.failure.non_retriable);
}

TEST(TaskSet, RemembersTheFirstMistake) {
  TaskSet twice;
  twice.Register(kAdd, [](int64_t n, const std::string&) { return n; });
  twice.Register(kAdd, [](int64_t n, const std::string&) { return n; });
  EXPECT_EQ(twice.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("task add is registered twice"));

  struct Case {
    std::string name;
    std::string why;
  };
  for (const Case& c : std::vector<Case>{{"", "may not be empty"},
                                         {std::string(257, 'x'), "257 bytes, at most 256"},
                                         {"a\nb", "control characters"},
                                         {"\xFF", "not UTF-8"}}) {
    TaskSet tasks;
    tasks.Register(Task<int64_t()>(c.name), [] { return int64_t{1}; });
    EXPECT_EQ(tasks.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(tasks.status().message()), HasSubstr(c.why));
  }
  TaskSet longest;
  longest.Register(Task<int64_t()>(std::string_view("é").data()), [] { return int64_t{1}; });
  EXPECT_TRUE(longest.status().ok());
}

TEST(TaskContext, HandsProgressFromAttemptToAttempt) {
  FakeContext context;
  EXPECT_EQ(context.LastProgress<int>(), std::nullopt);
  TaskContext& base = context;
  base.Heartbeat();
  EXPECT_TRUE(base.Heartbeat(7).ok());
  EXPECT_FALSE(base.Heartbeat(std::string("\xFF")).ok());
  ASSERT_EQ(context.heartbeats.size(), 2u);
  EXPECT_EQ(context.heartbeats[0].encoding, Encoding::kUnspecified);
  context.last = context.heartbeats[1];
  EXPECT_EQ(context.LastProgress<int>(), 7);
  EXPECT_EQ(context.LastProgress<std::string>(), std::nullopt);
}

}  // namespace
}  // namespace flux
