// What must be true of each execution once all is quiet.
#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/run_id.h"
#include "proto/bridge.h"
#include "tests/sim/reference.h"
#include "tests/sim/simulation.h"

namespace flux::sim {
namespace {

constexpr int64_t kRemovalUs = 10'000'000;  // longer than rows take to go
constexpr int kStoryLines = 60;             // of a history printed with a problem

using Events = std::vector<v1::HistoryEvent>;

std::string RunBytes(const Run& run) {
  const auto id = engine::RunId::FromText(run.run_id);
  return id ? id->Bytes() : "";
}

std::string Story(const Events& events) {
  std::string text;
  const size_t from = events.size() > kStoryLines ? events.size() - kStoryLines : 0;
  for (size_t i = from; i < events.size(); ++i) {
    absl::StrAppend(&text, "\n    ", TextOf(events[i]).substr(0, 200));
  }
  return text;
}

std::string OutcomeText(const v1::GetResultResponse& result) {
  return absl::StrCat(v1::ExecutionStatus_Name(result.status()), " ",
                      result.has_failure() ? TextOf(result.failure()) : TextOf(result.result()));
}

// Taken at its word.
Ending AsItEnded(const v1::GetResultResponse& result) {
  switch (result.status()) {
    case v1::EXECUTION_STATUS_COMPLETED:
      return Ending::Value(Datum::Of(result.result()));
    case v1::EXECUTION_STATUS_SKIPPED:
      return Ending::Skipped();
    case v1::EXECUTION_STATUS_RUNNING:
      return Ending::Never();
    default:
      return Ending::Failed({{result.failure(), /*own_words=*/false}});
  }
}

// What the execution failed of, without what could not be undone after it.
v1::Failure FirstOf(const v1::Failure& failure) {
  const std::string& message = failure.message();
  const size_t undone = message.find(" could not be undone: ");
  if (undone == std::string::npos) return failure;
  v1::Failure first = failure;
  first.set_message(message.substr(0, message.rfind("; ", undone)));
  return first;
}

// Says what the graph does not from the scripts of the tasks, and where faults or chance had their
// part from the history, which must be able to explain it.
class Witness final : public Oracle {
 public:
  // How a child, by its workflow id and its run (empty: the newest), of a program and with inputs,
  // was to end.
  using AskChild =
      std::function<Ending(const std::string& id, const std::string& run,
                           const std::string& workflow, const std::vector<v1::Payload>& inputs)>;
  Witness(const Run& run, const Fates& fates, uint64_t script_seed, const Ledger& ledger,
          const std::set<std::string>& emitted, AskChild ask_child)
      : run_(run),
        fates_(fates),
        script_seed_(script_seed),
        ledger_(ledger),
        emitted_(emitted),
        ask_child_(std::move(ask_child)),
        bytes_(RunBytes(run)) {}

  TaskEnd Task(const std::string& path, const v1::Step& step,
               const std::vector<Datum>& inputs) override {
    std::vector<std::string> texts;
    for (int i = 0; i < step.inputs_size(); ++i) {
      const Datum& input = inputs[static_cast<size_t>(i)];
      const bool none = input.kind == Datum::Kind::kNone;
      texts.push_back(
          absl::StrCat(TextOf(input.ToPayload()), none ? std::string() : step.inputs(i).pointer()));
    }
    const std::string real = RealPath(path);
    const auto given = ledger_.delivered().find({bytes_, real});
    // Pages of a map go by one path, and so do fragments that took each other's place; and what was
    // taken back may not have been handed out again.
    if (real == path && given != ledger_.delivered().end() && given->second.inputs != texts &&
        fates_.all().contains(path) && !absl::StrContains(path, "[page]")) {
      Complain(path, absl::StrCat("was given ", absl::StrJoin(given->second.inputs, " and "),
                                  " where the interpreter says ", absl::StrJoin(texts, " and ")));
    }
    const Answer answer =
        AnswerOf(run_.program->scripts.find(step.name())->second, script_seed_, real, texts);
    // What its clause took, rather than what became of the clause.
    const Fate& fate = fates_.Of(path);
    const v1::HistoryEvent* failed = fate.caught != nullptr ? fate.caught : fate.failed;
    if (failed != nullptr) {
      // Of what it went on as; or its own.
      if (answer.end == Answer::End::kContinue && fate.continued != nullptr) {
        return Fragment(answer);
      }
      if (!Explains(path, step, answer, *failed)) {
        Complain(path, absl::StrCat("failed without a reason: ", TextOf(*failed)));
      }
      return {Ending::Failed({{failed->failure(), false}}), nullptr, {}};
    }
    if (answer.failing_attempts > 0 && IsFinal(step, answer.transient) && !Outlived(path, answer)) {
      return {Ending::Failed({{answer.transient, false}}), nullptr, {}};
    }
    switch (answer.end) {
      case Answer::End::kValue:
        if (real != path && fate.completed != nullptr && !fate.completed->derived() &&
            !absl::StrContains(path, "[page]") &&
            TextOf(fate.completed->payload()) != TextOf(answer.value)) {
          Complain(path, absl::StrCat("completed with what its task did not answer: ",
                                      TextOf(*fate.completed)));
        }
        return {Ending::Value(Datum::Of(answer.value)), nullptr, {}};
      case Answer::End::kSkip:
        return {Ending::Skipped(), nullptr, {}};
      case Answer::End::kContinue:
        return Fragment(answer);
      case Answer::End::kFailure:
        break;
    }
    return {Ending::Failed({{answer.failure, false}}), nullptr, {}};
  }

  std::string FragmentPlace(const std::string& path) override {
    std::string step = path;
    size_t number = 0;
    if (fates_.GaveWay(path)) {
      // "t~2.last" went on as the fragment after that of "t~2".
      const size_t mark = path.rfind('~');
      step = path.substr(0, mark);
      number = static_cast<size_t>(std::stoul(path.substr(mark + 1))) + 1;
    }
    if (number < fates_.EarlierFragments(step)) absl::StrAppend(&step, "~", number);
    return step + ".";
  }

  Ending Event(const std::string& path, const v1::Step& step) override {
    const v1::WaitEventStep& wait = step.wait_event();
    const Fate& fate = fates_.Of(path);
    if (fate.completed != nullptr && fate.caught == nullptr) {
      const auto sent = run_.sent.find(wait.event());
      const v1::HistoryEvent& seen = fate.reread != nullptr ? *fate.reread : *fate.completed;
      const std::string& got = seen.payload().data();
      const bool came = sent != run_.sent.end() && sent->second.contains(got);
      if (!came && !emitted_.contains(wait.event()) &&
          !(wait.has_default_value() && wait.default_value().data() == got)) {
        Complain(path, absl::StrCat("took what nobody sent: ", TextOf(seen)));
      }
      return Ending::Value(Datum::Of(seen.payload()));
    }
    if (fate.failed != nullptr) {
      if (wait.timeout_ms() == 0 || wait.has_default_value() ||
          fate.failed->failure().type() != "flux.timeout.event") {
        Complain(path, absl::StrCat("failed without a reason: ", TextOf(*fate.failed)));
      }
      return Ending::Failed({{fate.failed->failure(), false}});
    }
    if (wait.timeout_ms() == 0 && !MustCome(wait.event())) return Ending::Never();
    return Ending::Value(Datum::Of(Json("\"what should have come\"")));
  }

  Ending Child(const std::string& path, const v1::Step& step,
               const std::vector<Datum>& inputs) override {
    const Fate& fate = fates_.Of(path);
    const std::string id = ChildId(fate);
    if (step.child().detached() || id.empty()) return Ended(path, step.child().detached());
    if (fate.failed != nullptr && (fate.failed->failure().type() == "flux.refused" ||
                                   fate.failed->failure().type() == "flux.conflict")) {
      return Ended(path, false);  // it was never there
    }
    const std::string run = ChildRun(fate);
    // It closed before its start was settled: under a shared id there is no telling which it was.
    if (run.empty() && fate.started != nullptr && IsShared(step)) return AsSaid(fate);
    if (fate.started == nullptr && fate.completed == nullptr && fate.failed == nullptr &&
        fate.skipped == nullptr && (run_.closed || InCaught(path))) {
      return Ending::Never();  // withdrawn: what started it ended first
    }
    std::vector<v1::Payload> payloads;
    for (const Datum& input : inputs) payloads.push_back(input.ToPayload());
    if (step.child().id_input()) payloads.pop_back();
    Ending ending = ask_child_(id, run, step.child().workflow(), payloads);
    if (ending.kind == Ending::Kind::kNever && fate.failed != nullptr) return Ended(path, false);
    for (Foreseen& failure : ending.failures) {
      if (!failure.own_words) {
        failure.failure.set_message(absl::StrCat("child ", id, ": ", failure.failure.message()));
      }
      failure.failure.set_non_retriable(true);
    }
    return ending;
  }

  Ending Emit(const std::string& path) override { return Ended(path, true); }

  std::optional<v1::Failure> Caught(const std::string& path) override {
    const v1::HistoryEvent* caught = fates_.Of(path).caught;
    if (caught == nullptr) return std::nullopt;
    return caught->failure();
  }

  std::optional<Ending> Decreed(const std::string& path) override {
    const Fate& fate = fates_.Of(path);
    if (fate.cancelled != nullptr) return Ending::Skipped();
    if (fate.decreed == nullptr) return std::nullopt;
    if (fate.decreed->type() == "step.skip_asked") return Ending::Skipped();
    return Ending::Value(Datum::Of(fate.decreed->payload()));
  }

  std::optional<uint64_t> Completed(const std::string& path) override {
    const Fate& fate = fates_.Of(path);
    if (fate.completed == nullptr) return std::nullopt;
    return fate.completed_at;
  }

  std::optional<uint64_t> Skipped(const std::string& path) override {
    const Fate& fate = fates_.Of(path);
    if (fate.skipped == nullptr) return std::nullopt;
    return fate.skipped_at;
  }

  bool Tolerated(const std::string& path) override { return fates_.Of(path).tolerated != nullptr; }

  const std::string& complaint() const { return complaint_; }

 private:
  static bool IsFinal(const v1::Step& step, const v1::Failure& failure) {
    const auto& final = step.task().non_retriable();
    return failure.non_retriable() ||
           std::find(final.begin(), final.end(), failure.type()) != final.end();
  }

  // Were the attempts that the task fails all lost on the way, before it could answer?
  bool Outlived(const std::string& path, const Answer& answer) const {
    const Fate& fate = fates_.Of(path);
    const v1::HistoryEvent* end = fate.completed;
    if (end == nullptr) end = fate.skipped;
    if (fate.continued != nullptr) end = fate.continued;
    if (end == nullptr || fate.caught != nullptr || end->attempt() <= answer.failing_attempts) {
      return false;
    }
    return std::none_of(fate.attempts.begin(), fate.attempts.end(), [&](const auto* attempt) {
      return TextOf(attempt->failure()) == TextOf(answer.transient);
    });
  }

  // Can the task have failed for good like that?
  bool Explains(const std::string& path, const v1::Step& step, const Answer& answer,
                const v1::HistoryEvent& event) const {
    const v1::Failure& failure = event.failure();
    const bool hurried = step.task().timeouts().schedule_to_close_ms() > 0;
    const bool last = event.attempt() >= step.task().retry().max_attempts() || hurried;
    const std::string text = TextOf(failure);
    if (answer.failing_attempts > 0 && text == TextOf(answer.transient)) {
      return event.attempt() <= answer.failing_attempts && (last || IsFinal(step, failure));
    }
    if (answer.end == Answer::End::kFailure && text == TextOf(answer.failure)) return true;
    const std::string& type = failure.type();
    if (type == "flux.timeout.schedule_to_close") return hurried;
    if (absl::StartsWith(type, "flux.timeout.") || type == "flux.worker_lost") return last;
    return (type == "flux.invalid_result" || type == "flux.payload_too_large") &&
           ledger_.WasGarbled(bytes_, RealPath(path));
  }

  // Was an event of the name acknowledged that nobody cancelled before it was delivered?
  bool MustCome(const std::string& name) const {
    const auto accepted = run_.accepted.find(name);
    if (accepted == run_.accepted.end()) return false;
    return std::any_of(accepted->second.begin(), accepted->second.end(),
                       [&](const auto& id) { return !fates_.cancelled_events().contains(id); });
  }

  // Did a body that the step at `path` lies in fail, and go on as a clause?
  bool InCaught(const std::string& path) const {
    for (size_t end = path.find_first_of(".["); end != std::string::npos;
         end = path.find_first_of(".[", end + 1)) {
      std::string outer = path.substr(0, end);
      // The step is no part of what it went on as.
      const size_t mark = outer.rfind('~');
      if (mark != std::string::npos && outer.find_first_of(".[", mark) == std::string::npos) {
        outer.resize(mark);
      }
      if (fates_.Of(outer).caught != nullptr) return true;
    }
    return false;
  }

  // The workflow id of the child that a step started: "WORKFLOW as ID".
  static std::string ChildId(const Fate& fate) {
    if (fate.starting == nullptr) return "";
    const std::string& detail = fate.starting->detail();
    const size_t as = detail.find(" as ");
    return as == std::string::npos ? "" : detail.substr(as + 4);
  }

  // The run of the child that a step started, once that is settled: "ID (run RUN)".
  static std::string ChildRun(const Fate& fate) {
    static constexpr std::string_view kRun = " (run ";
    if (fate.started == nullptr) return "";
    const std::string& detail = fate.started->detail();
    const size_t run = detail.rfind(kRun);
    if (run == std::string::npos) return "";
    return detail.substr(run + kRun.size(), detail.size() - run - kRun.size() - 1);
  }

  // May other steps start a child of the same id?
  static bool IsShared(const v1::Step& step) {
    return step.child().id_input() || !step.child().workflow_id().empty();
  }

  // Taken at its word.
  static Ending AsSaid(const Fate& fate) {
    if (fate.failed != nullptr) return Ending::Failed({{fate.failed->failure(), false}});
    if (fate.caught != nullptr) return Ending::Failed({{fate.caught->failure(), false}});
    if (fate.completed != nullptr) return Ending::Value(Datum::Of(fate.completed->payload()));
    return fate.skipped != nullptr ? Ending::Skipped() : Ending::Never();
  }

  // How a message to another execution ended: whatever the coordinator says of it, which may refuse
  // it, but must say something.
  Ending Ended(const std::string& path, bool may_complete) {
    const Fate& fate = fates_.Of(path);
    if (fate.failed != nullptr) {
      if (!absl::StartsWith(fate.failed->failure().type(), "flux.")) {
        Complain(path, absl::StrCat("failed without a reason: ", TextOf(*fate.failed)));
      }
      return Ending::Failed({{fate.failed->failure(), false}});
    }
    if (fate.completed != nullptr && fate.caught == nullptr && may_complete) {
      return Ending::Value(Datum::Of(fate.completed->payload()));
    }
    return Ending::Value(Datum::Of(Json("\"an answer that did not come\"")));
  }

  static TaskEnd Fragment(const Answer& answer) { return {{}, answer.fragment, answer.inputs}; }

  void Complain(const std::string& path, const std::string& text) {
    if (complaint_.empty()) complaint_ = absl::StrCat("step ", path, " ", text);
  }

  const Run& run_;
  const Fates& fates_;
  const uint64_t script_seed_;
  const Ledger& ledger_;
  const std::set<std::string>& emitted_;
  const AskChild ask_child_;
  const std::string bytes_;
  std::string complaint_;
};

}  // namespace

std::optional<Events> Simulation::HistoryOf(const Run& run) {
  Events events;
  std::string token;
  do {
    v1::GetHistoryRequest request;
    *request.mutable_execution() = RefOf(run);
    request.set_payloads(true);
    request.set_page_token(token);
    request.set_page_size(400);
    const auto page = AskNow<v1::GetHistoryResponse>(
        [&](engine::Engine& engine, engine::Engine::Reply<v1::GetHistoryResponse> reply) {
          engine.History(request, std::move(reply));
        });
    if (!page.ok()) {
      Problem(
          absl::StrCat("the history of ", run.id, " cannot be read: ", page.status().ToString()));
      return std::nullopt;
    }
    events.insert(events.end(), page->events().begin(), page->events().end());
    token = page->next_page_token();
  } while (!token.empty());
  return events;
}

std::optional<Ending> Simulation::CheckRun(Run* run) {
  if (run->refused) return std::nullopt;
  if (run->run_id.empty() && !run->child) {
    Problem(absl::StrCat(run->id, " could not be started although all is well"));
    return std::nullopt;
  }
  v1::GetResultRequest request;
  *request.mutable_execution() = RefOf(*run);
  const auto result = AskNow<v1::GetResultResponse>(
      [&](engine::Engine& engine, engine::Engine::Reply<v1::GetResultResponse> reply) {
        engine.GetResult(request, std::move(reply));
      });
  if (!result.ok()) {
    Problem(absl::StrCat("the acknowledged execution ", run->id,
                         " has no result: ", result.status().ToString()));
    return std::nullopt;
  }
  if (run->child) run->run_id = result->run_id();
  Saw(run, *result, ++answers_);
  v1::VerifyExecutionRequest verify;
  *verify.mutable_execution() = RefOf(*run);
  const auto verified = AskNow<v1::VerifyExecutionResponse>(
      [&](engine::Engine& engine, engine::Engine::Reply<v1::VerifyExecutionResponse> reply) {
        engine.Verify(verify, std::move(reply));
      });
  if (!verified.ok()) {
    Problem(absl::StrCat(run->id, " cannot be verified: ", verified.status().ToString()));
    return std::nullopt;
  }
  if (!verified->equal()) {
    Problem(absl::StrCat("replay of ", run->id, " differs: ", verified->difference()));
    return std::nullopt;
  }
  const std::optional<Events> events = HistoryOf(*run);
  if (!events) return std::nullopt;
  if (verbose()) Note(absl::StrCat(run->id, " came to ", OutcomeText(*result), Story(*events)));
  // Its beginning is dropped: nothing can be held against the rest but that it replays.
  if (!events->empty() && events->front().type() == "history.dropped") return AsItEnded(*result);
  const Fates fates(*events, *run->program);
  CheckHistory(*run, *events, fates);
  CheckLabels(*run, *events);
  CheckUndone(*run, *result, fates);
  if (fates.migrated() && !run->migrate_asked) {
    Problem(absl::StrCat(run->id, " was moved to another version, which nobody asked for"));
  }
  return CheckOutcome(*run, *result, *events, fates);
}

void Simulation::CheckHistory(const Run& run, const Events& events, const Fates& fates) {
  if (!fates.fault().empty()) {
    return Problem(absl::StrCat("the history of ", run.id, " ", fates.fault(), Story(events)));
  }
  const std::string bytes = RunBytes(run);
  for (const auto& [path, fate] : fates.all()) {
    // What a clause, a fragment or an operator made of a task is no answer of the task's.
    if (fate.completed == nullptr || fate.completed->derived() || fate.caught != nullptr ||
        fate.decreed != nullptr || absl::StrContains(path, "[page]") || RealPath(path) != path ||
        fate.completed->type() != "step.completed") {
      continue;
    }
    const auto given = ledger_.delivered().find({bytes, path});
    if (given == ledger_.delivered().end()) {
      return Problem(
          absl::StrCat("step ", path, " of ", run.id, " completed but was never handed out"));
    }
    const Answer answer = AnswerOf(run.program->scripts.find(NameOf(path))->second, script_seed_,
                                   path, given->second.inputs);
    if (answer.end == Answer::End::kContinue) continue;
    if (answer.end != Answer::End::kValue || fate.completed->attempt() <= answer.failing_attempts ||
        TextOf(answer.value) != TextOf(fate.completed->payload())) {
      return Problem(absl::StrCat("step ", path, " of ", run.id, " completed with what its task ",
                                  "did not answer: ", TextOf(*fate.completed)));
    }
  }
}

// What tasks set, in the order in which they ended.
void Simulation::CheckLabels(const Run& run, const Events& events) {
  std::map<std::string, std::string> expected;
  if (!run.child) expected["operated"] = run.operated ? "yes" : "no";
  for (const v1::HistoryEvent& event : events) {
    const std::string& type = event.type();
    // By a worker, that is: not by a clause, a fragment or an operator.
    const bool ends =
        !event.identity().empty() &&
        (type == "step.completed" || type == "step.skipped" || type == "step.continued");
    const auto script = run.program->scripts.find(NameOf(event.step()));
    if (!ends || script == run.program->scripts.end()) continue;
    for (const auto& [name, value] : LabelsOf(script->second, event.step())) {
      if (value.empty()) {
        expected.erase(name);
      } else {
        expected[name] = value;
      }
    }
    for (const auto& [name, value] : StepLabelsOf(script->second, event.step())) {
      if (!absl::StrContains(event.detail(), absl::StrCat(name, "=", value))) {
        Problem(absl::StrCat(run.id, ": the label ", name, "=", value,
                             " of a step is not told: ", TextOf(event), " ", event.detail()));
      }
    }
  }
  v1::DescribeExecutionRequest request;
  *request.mutable_execution() = RefOf(run);
  const auto described = AskNow<v1::DescribeExecutionResponse>(
      [&](engine::Engine& engine, engine::Engine::Reply<v1::DescribeExecutionResponse> reply) {
        engine.Describe(request, std::move(reply));
      });
  if (!described.ok()) {
    return Problem(absl::StrCat("describing ", run.id, ": ", described.status().ToString()));
  }
  const auto& labels = described->info().labels();
  const std::map<std::string, std::string> got(labels.begin(), labels.end());
  const auto text = [](const std::map<std::string, std::string>& all) {
    return absl::StrJoin(all, ", ", absl::PairFormatter("="));
  };
  if (got != expected) {
    Problem(absl::StrCat(run.id, " has the labels ", text(got), " and was to have ", text(expected),
                         Story(events)));
  }
}

void Simulation::CheckUndone(const Run& run, const v1::GetResultResponse& result,
                             const Fates& fates) {
  const bool undoes = result.status() == v1::EXECUTION_STATUS_FAILED ||
                      result.status() == v1::EXECUTION_STATUS_CANCELLED;
  if (!undoes || run.operated) return;
  std::vector<std::string> expected(fates.to_undo().rbegin(), fates.to_undo().rend());
  for (std::string& path : expected) path += ".undo";
  if (expected != fates.undone()) {
    Problem(absl::StrCat(run.id, " undid ", absl::StrJoin(fates.undone(), ", "),
                         " and was to undo ", absl::StrJoin(expected, ", ")));
  }
}

// Did something that is no part of the graph end it: its clients, or its deadline?
bool Simulation::EndedEarly(const Run& run, const v1::GetResultResponse& result,
                            const Events& events, const Fates& fates) {
  if (run.cancelled && !fates.reopened() && result.status() != run.cancel_status &&
      result.status() != v1::EXECUTION_STATUS_CANCELLED &&
      result.status() != v1::EXECUTION_STATUS_TERMINATED) {
    Problem(absl::StrCat(run.id, " was stopped, acknowledged, and came to ", OutcomeText(result)));
    return true;
  }
  if (result.status() == v1::EXECUTION_STATUS_CANCELLED ||
      result.status() == v1::EXECUTION_STATUS_TERMINATED) {
    if (!run.cancel_asked && !run.child) Problem(absl::StrCat(run.id, " was stopped by nobody"));
    return true;
  }
  // Of its own, that is: one of a child says which.
  if (result.failure().type() != "flux.timeout.execution" ||
      absl::StartsWith(result.failure().message(), "child ")) {
    return false;
  }
  const int64_t limit_ms = run.program->definition.execution_timeout_ms();
  const int64_t took_ms = events.back().time_ms() - events.front().time_ms();
  if (limit_ms == 0 || (took_ms < limit_ms && !run.operated)) {
    Problem(
        absl::StrCat(run.id, " ran into its deadline of ", limit_ms, " ms after ", took_ms, " ms"));
  }
  return true;
}

Ending Simulation::CheckOutcome(const Run& run, const v1::GetResultResponse& result,
                                const Events& events, const Fates& fates) {
  if (EndedEarly(run, result, events, fates)) {
    return Ending::Failed({{result.failure(), /*own_words=*/false}});
  }
  Witness witness(run, fates, script_seed_, ledger_, emitted_,
                  [this](const std::string& id, const std::string& run_id,
                         const std::string& workflow, const std::vector<v1::Payload>& inputs) {
                    Run child;
                    child.id = id;
                    child.run_id = run_id;
                    child.child = true;
                    child.inputs = inputs;
                    child.program = ProgramOf(workflow);
                    const std::optional<Ending> ending = CheckRun(&child);
                    return ending.value_or(Ending::Never());
                  });
  const Ending expected = Interpret(
      fates.migrated() ? run.program->next_version : run.program->definition, run.inputs, &witness);
  bool fits = false;
  switch (expected.kind) {
    case Ending::Kind::kValue:
      fits = result.status() == v1::EXECUTION_STATUS_COMPLETED &&
             TextOf(result.result()) == TextOf(expected.value.ToPayload());
      break;
    case Ending::Kind::kSkipped:
      fits = result.status() == v1::EXECUTION_STATUS_SKIPPED;
      break;
    case Ending::Kind::kNever:
      fits = result.status() == v1::EXECUTION_STATUS_RUNNING;
      break;
    case Ending::Kind::kFailed:
      fits = result.status() == v1::EXECUTION_STATUS_FAILED &&
             std::any_of(expected.failures.begin(), expected.failures.end(),
                         [&](const Foreseen& each) { return each.Is(FirstOf(result.failure())); });
      break;
  }
  // What an operator takes up again may fail of something else than what it failed of first.
  if (!fits && run.operated && result.status() == v1::EXECUTION_STATUS_FAILED) {
    fits = std::any_of(events.begin(), events.end(), [&](const v1::HistoryEvent& event) {
      return event.type() == "step.failed" &&
             TextOf(event.failure()) == TextOf(FirstOf(result.failure()));
    });
  }
  if (!witness.complaint().empty()) {
    Problem(absl::StrCat(run.id, ": ", witness.complaint(), Story(events)));
  } else if (!fits) {
    const bool stuck = result.status() == v1::EXECUTION_STATUS_RUNNING;
    Problem(absl::StrCat(run.id, stuck ? " is stuck: " : " came to ", OutcomeText(result),
                         "\n  but was to have ", TextOf(expected), Story(events)));
  }
  return expected;
}

// ---- at the very end ----

void Simulation::CheckBulks() {
  const auto list = AskNow<v1::ListBulkOperationsResponse>(
      [](engine::Engine& engine, engine::Engine::Reply<v1::ListBulkOperationsResponse> reply) {
        engine.ListBulks(std::move(reply));
      });
  if (!list.ok()) return Problem(absl::StrCat("listing bulks: ", list.status().ToString()));
  for (const auto& [request, id] : bulks_) {
    const auto bulk = std::find_if(list->operations().begin(), list->operations().end(),
                                   [&](const auto& each) { return each.id() == id; });
    if (bulk == list->operations().end()) {
      Problem(absl::StrCat("the acknowledged bulk operation ", id, " is not known"));
    } else if (bulk->state() == v1::BULK_STATE_RUNNING) {
      Problem(absl::StrCat("a bulk operation does not end: ", bulk->ShortDebugString()));
    }
  }
}

void Simulation::CheckQueries() {
  const std::optional<std::vector<v1::ExecutionInfo>> all = Executions("");
  if (!all) return;
  using Ids = std::set<std::string>;
  std::map<std::string, Ids> expected;  // by query
  for (const v1::ExecutionInfo& info : *all) {
    for (const auto& [name, value] : info.labels()) {
      expected[absl::StrCat("label.", name, " = \"", value, "\"")].insert(info.run_id());
    }
  }
  for (const auto& [query, ids] : expected) {
    const std::optional<std::vector<v1::ExecutionInfo>> found = Executions(query);
    if (!found) return;
    Ids got;
    for (const v1::ExecutionInfo& info : *found) got.insert(info.run_id());
    if (got != ids) {
      return Problem(absl::StrCat("the query ", query, " finds ", absl::StrJoin(got, ", "),
                                  " instead of ", absl::StrJoin(ids, ", ")));
    }
    v1::CountExecutionsRequest request;
    request.mutable_filter()->set_query(query);
    const auto count = AskNow<v1::CountExecutionsResponse>(
        [&](engine::Engine& engine, engine::Engine::Reply<v1::CountExecutionsResponse> reply) {
          engine.Count(request, std::move(reply));
        });
    if (!count.ok() || count->count() != ids.size()) {
      return Problem(
          absl::StrCat("the count of ", query, " is ",
                       count.ok() ? absl::StrCat(count->count()) : count.status().ToString(),
                       " instead of ", ids.size()));
    }
  }
}

std::optional<std::vector<v1::ExecutionInfo>> Simulation::Executions(const std::string& query) {
  std::vector<v1::ExecutionInfo> all;
  v1::ListExecutionsRequest request;
  request.mutable_filter()->set_query(query);
  do {
    const auto page = AskNow<v1::ListExecutionsResponse>(
        [&](engine::Engine& engine, engine::Engine::Reply<v1::ListExecutionsResponse> reply) {
          engine.List(request, std::move(reply));
        });
    if (!page.ok()) {
      Problem(absl::StrCat("executions cannot be listed: ", page.status().ToString()));
      return std::nullopt;
    }
    all.insert(all.end(), page->executions().begin(), page->executions().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return all;
}

void Simulation::DeleteAll() {
  deleting_ = true;
  // An open one is stopped first, and what it starts then as well.
  constexpr int kRoundsMax = 20;
  for (int round = 0; problems_.empty(); ++round) {
    const std::optional<std::vector<v1::ExecutionInfo>> all = Executions("");
    if (!all) return;
    if (all->empty()) break;
    if (round == kRoundsMax) return Problem("executions do not go although they are deleted");
    for (const v1::ExecutionInfo& info : *all) {
      v1::OperateExecutionRequest request;
      request.mutable_execution()->set_workflow_id(info.workflow_id());
      request.mutable_execution()->set_run_id(info.run_id());
      if (info.close_time_ms() == 0) {
        request.mutable_operation()->mutable_terminate();
      } else {
        request.mutable_operation()->mutable_delete_();
      }
      const auto answer = AskNow<v1::OperateExecutionResponse>(
          [&](engine::Engine& engine, engine::Engine::Reply<v1::OperateExecutionResponse> reply) {
            engine.Operate(request, std::move(reply));
          });
      // Closed meanwhile; or deleted by a request whose answer a crash swallowed.
      if (!answer.ok() && !absl::IsFailedPrecondition(answer.status()) &&
          !absl::IsNotFound(answer.status())) {
        return Problem(
            absl::StrCat("deleting ", info.workflow_id(), ": ", answer.status().ToString()));
      }
      if (answer.ok() && request.operation().has_delete_() && dice_.OneIn(4)) {
        process_->Crash("an execution was just deleted");
      }
      v1::DescribeExecutionRequest describe;
      *describe.mutable_execution() = request.execution();
      const auto described = AskNow<v1::DescribeExecutionResponse>(
          [&](engine::Engine& engine, engine::Engine::Reply<v1::DescribeExecutionResponse> reply) {
            engine.Describe(describe, std::move(reply));
          });
      if (answer.ok() && request.operation().has_delete_() &&
          !absl::IsNotFound(described.status())) {
        return Problem(
            absl::StrCat("the deletion of ", info.workflow_id(), " (run ", info.run_id(),
                         ") was acknowledged, and it is there: ", described.status().ToString()));
      }
    }
  }
  Pass(kRemovalUs);
  // The rest is of definitions, bulk operations, sessions, counts and deletions.
  const std::string left = process_->RowsOf("ACHPRSVFLEWX");
  if (problems_.empty() && !left.empty()) {
    Problem(absl::StrCat("all executions are deleted, and rows are left: ", left));
  }
}

}  // namespace flux::sim
