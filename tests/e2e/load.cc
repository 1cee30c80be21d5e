#include "tests/e2e/load.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

constexpr absl::Duration kTryDeadline = absl::Seconds(3);
constexpr absl::Duration kIdle = absl::Milliseconds(1);  // between looks at the budget
constexpr int kListMax = 8;
constexpr int64_t kFailuresMax = 3;
constexpr absl::string_view kChildSuffix = "/child";  // of a family's child's workflow id

// Nobody served, or the server died with the call.
bool IsOutage(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status);
}

std::vector<int64_t> ListOf(int64_t length) {
  std::vector<int64_t> list;
  for (int64_t i = 0; i < length; ++i) list.push_back(i);
  return list;
}

v1::StartWorkflowRequest RequestOf(const Promise& promise) {
  switch (promise.kind) {
    case Kind::kChain:
      return StartOf(kChain, promise.workflow_id, promise.number);
    case Kind::kWide:
      return StartOf(kWide, promise.workflow_id, ListOf(promise.number));
    case Kind::kStamps:
      return StartOf(kStamps, promise.workflow_id, ListOf(promise.number));
    case Kind::kNap:
      return StartOf(kNap, promise.workflow_id, promise.number);
    case Kind::kFlaky:
      return StartOf(kFlaky, promise.workflow_id, promise.number);
    case Kind::kFamily:
      return StartOf(kFamily, promise.workflow_id, promise.number, promise.workflow_id);
  }
  return {};
}

// The only right result; of the stamps only the ledger knows.
std::optional<int64_t> ResultOf(const Promise& promise) {
  switch (promise.kind) {
    case Kind::kChain:
      return promise.number + 4;
    case Kind::kWide:
      return promise.number * (promise.number - 1) / 2 + promise.number;
    case Kind::kNap:
      return promise.number + 2;
    case Kind::kFamily:
      return promise.number + 5;
    case Kind::kStamps:
    case Kind::kFlaky:  // counts attempts, and killed workers use some up
      return std::nullopt;
  }
  return std::nullopt;
}

// How many task steps it completes.
size_t TasksOf(const Promise& promise) {
  switch (promise.kind) {
    case Kind::kChain:
      return 4;
    case Kind::kWide:
      return static_cast<size_t>(promise.number) + 1;
    case Kind::kStamps:
      return static_cast<size_t>(promise.number);
    case Kind::kNap:
    case Kind::kFlaky:
      return 2;
    case Kind::kFamily:  // the child does the others
      return 1;
  }
  return 0;
}

}  // namespace

Load::Load(std::string target, uint64_t seed) : target_(std::move(target)), seed_(seed) {}

Load::~Load() {
  stop_ = true;
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void Load::Begin(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this, i] { Run(i); });
}

int Load::acknowledged() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(promises_.size());
}

void Load::Violation(std::string what) {
  const std::lock_guard lock(mutex_);
  violations_.push_back(std::move(what));
}

void Load::Run(int thread) {
  std::mt19937_64 random(seed_ * 1'000 + static_cast<uint64_t>(thread));
  Api api(target_);
  // Until each is durable: the coordinator may die during any of them.
  for (const v1::Definition& definition :
       {DefinitionOf(kChain), DefinitionOf(kWide), DefinitionOf(kStamps), DefinitionOf(kNap),
        DefinitionOf(kFlaky), DefinitionOf(kFamily)}) {
    for (absl::Status put; !stop_; absl::SleepFor(kIdle)) {
      put = api.Put(definition).status();
      if (put.ok()) break;
      if (!IsOutage(put)) return Violation(absl::StrCat("put: ", put.ToString()));
    }
  }
  for (int number = 0; !stop_; ++number) {
    int left = budget_.load();
    while (left > 0 && !budget_.compare_exchange_weak(left, left - 1)) {
    }
    if (left <= 0) {
      absl::SleepFor(kIdle);
      continue;
    }
    Act(random, api, absl::StrCat("load-", thread, "-", number));
  }
}

void Load::Act(std::mt19937_64& random, Api& api, const std::string& name) {
  Promise promise;
  promise.kind = static_cast<Kind>(random() % kKinds);
  promise.number = promise.kind == Kind::kFlaky ? static_cast<int64_t>(random() % kFailuresMax)
                                                : static_cast<int64_t>(random() % (kListMax + 1));
  promise.workflow_id = name;
  const v1::StartWorkflowRequest request = RequestOf(promise);
  while (true) {
    auto started = api.Start(request, kTryDeadline);
    if (started.ok()) {
      if (started->workflow_id() != name) Violation(absl::StrCat(name, " got another id"));
      promise.run_id = started->run_id();
      break;
    }
    if (!IsOutage(started.status())) {
      return Violation(absl::StrCat("start of ", name, ": ", started.status().ToString()));
    }
  }
  std::optional<Promise> old;
  {
    const std::lock_guard lock(mutex_);
    promises_[name] = promise;
    if (random() % 4 == 0) {
      auto any = promises_.begin();
      std::advance(any, static_cast<ptrdiff_t>(random() % promises_.size()));
      old = any->second;
    }
  }
  if (!old.has_value()) return;
  // A repeated request is answered with what it started, however long ago.
  auto again = api.Start(RequestOf(*old), kTryDeadline);
  if (again.ok() ? again->run_id() != old->run_id || again->started() : !IsOutage(again.status())) {
    Violation(absl::StrCat("the start of ", old->workflow_id, ", run ", old->run_id,
                           ", was repeated and answered with ",
                           again.ok() ? again->DebugString() : again.status().ToString()));
  }
}

void Load::End() {
  budget_ = 0;
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Load::CheckOne(Api& api, const Promise& promise,
                    const std::multimap<std::string, LedgerLine>& ends) {
  SCOPED_TRACE(promise.workflow_id + " run " + promise.run_id);
  const v1::ExecutionRef ref = Ref(promise.workflow_id);
  auto result = api.AwaitClosed(ref, kPatience);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->run_id(), promise.run_id);
  ASSERT_EQ(result->status(), v1::EXECUTION_STATUS_COMPLETED) << result->DebugString();
  if (const std::optional<int64_t> right = ResultOf(promise)) {
    EXPECT_EQ(Read<int64_t>(result->result()), right);
  }

  auto events = api.History(ref);
  ASSERT_TRUE(events.ok()) << events.status();
  std::set<std::string> completed;
  std::set<std::string> stamps;
  size_t tasks = 0;
  size_t closed = 0;
  uint64_t ordinal = 0;
  int64_t time_ms = 0;
  for (const v1::HistoryEvent& event : *events) {
    if (!event.derived()) {
      // That a message was taken is a record with nothing to tell.
      if (promise.kind == Kind::kFamily) {
        EXPECT_GT(event.ordinal(), ordinal) << event.DebugString();
        ordinal = event.ordinal();
      } else {
        EXPECT_EQ(event.ordinal(), ++ordinal) << event.DebugString();
      }
    }
    EXPECT_GE(event.time_ms(), time_ms);
    time_ms = event.time_ms();
    EXPECT_EQ(closed, 0u) << "after the end: " << event.DebugString();
    closed += absl::StartsWith(event.type(), "execution.") && event.type() != "execution.started";
    if (event.type() != "step.completed") continue;
    EXPECT_TRUE(completed.insert(event.step()).second) << "twice: " << event.step();
    if (event.delivery() == 0) continue;  // not a task
    ++tasks;
    // The worker it names did run this very delivery, and finished it.
    const auto [first, last] = ends.equal_range(promise.run_id);
    const bool known = std::any_of(first, last, [&](const auto& entry) {
      const LedgerLine& line = entry.second;
      return line.delivery() == event.delivery() && line.worker == event.identity() &&
             (event.step() == line.step || absl::EndsWith(event.step(), "." + line.step));
    });
    EXPECT_TRUE(known) << "no worker did this: " << event.DebugString();
  }
  EXPECT_EQ(tasks, TasksOf(promise));
  EXPECT_EQ(closed, 1u);

  if (promise.kind == Kind::kStamps) {
    // The recorded outcome of each is that of a delivery of this run, and no two are of the same.
    const auto tokens = Read<std::vector<std::string>>(result->result());
    ASSERT_TRUE(tokens.has_value());
    EXPECT_EQ(tokens->size(), static_cast<size_t>(promise.number));
    for (const std::string& token : *tokens) {
      EXPECT_TRUE(stamps.insert(token).second) << token;
      const auto [first, last] = ends.equal_range(promise.run_id);
      EXPECT_EQ(std::count_if(first, last,
                              [&](const auto& entry) { return entry.second.token == token; }),
                1)
          << token;
    }
  }

  auto verified = api.Verify(ref);
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_TRUE(verified->equal()) << verified->difference();
  EXPECT_GE(verified->records(), ordinal);
  if (promise.kind != Kind::kFamily) {
    EXPECT_EQ(verified->records(), ordinal);
  }
}

void Load::Check(Api& api, const Ledger& ledger) {
  for (const std::string& violation : violations_) ADD_FAILURE() << violation;
  // Everything has ended before the ledger is read.
  for (const auto& [id, promise] : promises_) {
    auto result = api.AwaitClosed(Ref(id), kPatience);
    ASSERT_TRUE(result.ok()) << result.status();
  }
  std::multimap<std::string, LedgerLine> ends;  // by run
  std::map<std::string, int> begun, ended;      // by token
  size_t children = 0;
  std::map<std::string, std::string> child_runs;
  for (const auto& [id, promise] : promises_) children += promise.kind == Kind::kFamily;
  for (LedgerLine& line : ledger.Read()) {
    const std::string id = line.workflow_id;
    const auto promise = promises_.find(
        absl::EndsWith(id, kChildSuffix) ? id.substr(0, id.size() - kChildSuffix.size()) : id);
    ASSERT_NE(promise, promises_.end()) << "a task ran for " << id << ", which nobody started";
    if (promise->first == id) {
      EXPECT_EQ(line.run(), promise->second.run_id) << id << " was started twice";
    } else {
      EXPECT_EQ(child_runs.emplace(id, line.run()).first->second, line.run())
          << id << " was started twice";
    }
    // A token is handed to one execution of a function: a second one could claim another outcome.
    if (line.event == "begin") {
      EXPECT_EQ(++begun[line.token], 1) << line.token << " of " << id << " was handed out twice";
    } else {
      EXPECT_EQ(++ended[line.token], 1) << line.token << " of " << id;
      ends.emplace(line.run(), std::move(line));
    }
  }
  for (const auto& [id, promise] : promises_) {
    CheckOne(api, promise, ends);
    if (::testing::Test::HasFatalFailure()) return;
  }
  auto count = api.Count();
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(*count, promises_.size() + children);
  EXPECT_EQ(child_runs.size(), children);
  auto listed = api.List(37);
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_EQ(listed->size(), promises_.size() + children);
  std::set<std::string> runs;
  for (const v1::ExecutionInfo& info : *listed) {
    EXPECT_TRUE(runs.insert(info.run_id()).second) << "listed twice: " << info.workflow_id();
    EXPECT_EQ(info.status(), v1::EXECUTION_STATUS_COMPLETED) << info.workflow_id();
  }
  EXPECT_TRUE(Eventually([&] {
    auto info = api.Info();
    return info.ok() && info->tasks_ready() == 0 && info->tasks_running() == 0 &&
           info->executions_open() == 0;
  })) << "something is left over: "
      << api.Info()->DebugString();
}

}  // namespace flux::e2e
