// Shared by the core's tests: definitions in a few words, and an execution driven with everything
// checked on the way.
#ifndef FLUX_TESTS_CORE_HARNESS_H_
#define FLUX_TESTS_CORE_HARNESS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/core.h"
#include "engine/core/json_value.h"
#include "engine/core/state.h"
#include "flux/v1/definition.pb.h"

namespace flux::engine::testing {

v1::Payload Json(std::string_view text);
v1::Payload ListPayload(const std::vector<v1::Payload>& items);

// Inputs.
v1::Input FromStep(uint32_t step, std::string_view pointer = "");
v1::Input FromParameter(uint32_t parameter, std::string_view pointer = "");
v1::Input Literal(std::string_view json, std::string_view pointer = "");
v1::Input Optional(v1::Input input);

// Builds a definition scope by scope. Steps return their ordinal, scopes their number. What a
// helper does not cover is set through step().
class DefinitionBuilder {
 public:
  explicit DefinitionBuilder(std::string name = "wf", uint32_t parameters = 0);

  uint32_t Scope(uint32_t parameters);
  uint32_t Add(uint32_t scope, std::string name, std::vector<v1::Input> inputs = {});
  uint32_t Task(uint32_t scope, std::string name, std::vector<v1::Input> inputs = {});
  uint32_t Sleep(uint32_t scope, std::string name, int64_t duration_ms,
                 std::vector<v1::Input> inputs = {});
  uint32_t Map(uint32_t scope, std::string name, uint32_t body, std::vector<v1::Input> inputs,
               uint32_t max_parallel = 0);
  uint32_t Loop(uint32_t scope, std::string name, uint32_t body, std::vector<v1::Input> inputs,
                uint64_t turns, std::optional<v1::Input> done = std::nullopt);
  uint32_t Block(uint32_t scope, std::string name, uint32_t body,
                 std::vector<v1::Input> inputs = {});
  uint32_t Switch(uint32_t scope, std::string name, std::vector<v1::Input> inputs,
                  std::vector<std::pair<std::string, uint32_t>> cases,
                  std::optional<uint32_t> otherwise = std::nullopt);
  uint32_t Join(uint32_t scope, std::string name, std::vector<v1::Input> inputs);
  // A join that may finish early.
  uint32_t Early(uint32_t scope, std::string name, std::vector<v1::Input> inputs, uint32_t first,
                 uint32_t tolerated = 0);
  // A map over pages: `page` is given the cursor and the captures.
  uint32_t Pages(uint32_t scope, std::string name, uint32_t page, uint32_t body,
                 std::vector<v1::Input> inputs, uint32_t max_parallel = 0);
  uint32_t Wait(uint32_t scope, std::string name, std::string event, int64_t timeout_ms = 0,
                std::string_view default_json = "", std::vector<v1::Input> inputs = {});
  // Payload, then the target's workflow id.
  uint32_t Emit(uint32_t scope, std::string name, std::string event, v1::Input payload,
                v1::Input target);
  uint32_t Child(uint32_t scope, std::string name, std::string workflow,
                 std::vector<v1::Input> inputs = {}, bool detached = false);
  // The task "undo.<name>" undoes the step.
  void Undo(uint32_t scope, uint32_t step, std::string name);
  uint32_t Fail(uint32_t scope, std::string name, std::string type,
                std::vector<v1::Input> inputs = {});
  uint32_t Skip(uint32_t scope, std::string name, std::vector<v1::Input> inputs = {});
  void Catch(uint32_t scope, uint32_t step, std::vector<std::string> types, uint32_t body,
             std::vector<v1::Input> captures = {});
  void After(uint32_t scope, uint32_t step, uint32_t earlier);
  void Result(uint32_t scope, v1::Input input);

  v1::Step& step(uint32_t scope, uint32_t index);
  const v1::Definition& definition() const { return definition_; }
  v1::Definition& definition() { return definition_; }
  // Fails the test if it does not compile.
  std::shared_ptr<const Graph> Compile() const;

 private:
  v1::Definition definition_;
};

// An execution and two shadows: one that replays every record from its serialised bytes, one that
// is replaced by a loaded snapshot now and then. After each command all three must have equal
// snapshots and look-ups, what the effects said must be what the state says, and what steps wait
// for must be what their graph says.
class Driver {
 public:
  // `set` fills in what else the start record is to say.
  explicit Driver(std::shared_ptr<const Graph> graph, std::vector<v1::Payload> inputs = {},
                  int64_t now_ms = 1'000'000, uint64_t seed = 1,
                  const std::function<void(v1::ExecutionStarted&)>& set = nullptr);

  // Commands on the step of that path ("codes[17].parse").
  Verdict Complete(std::string_view path, const v1::Payload& value);
  Verdict Complete(std::string_view path, std::string_view json) {
    return Complete(path, Json(json));
  }
  Verdict SkipResult(std::string_view path);
  Verdict FailTask(std::string_view path, std::string_view type, bool non_retriable = false);
  Verdict End(std::string_view path, AttemptEnd reason);
  Verdict Redeliver(std::string_view path);
  Verdict Continue(std::string_view path, const v1::Definition& fragment,
                   std::vector<v1::Payload> inputs = {});
  absl::StatusOr<Verdict> Do(Command command);

  absl::StatusOr<Verdict> Send(std::string_view event, std::string_view json,
                               std::string_view id = "", int64_t deliver_at_ms = 0);
  // What operators do, by path; the message of the refusal, or "".
  std::string Retry(std::string_view path = "");
  std::string Park(std::string_view path);
  std::string Unpark(std::string_view path);
  std::string Resolve(std::string_view path, std::string_view json);
  std::string SkipStep(std::string_view path);
  std::string Rewind(std::string_view path);
  std::string Edit(std::string_view event, std::string_view json, uint64_t number = 0);
  std::string Replay(std::string_view event, std::string_view json);
  // The status of doing it, as text: "" if it was done.
  std::string Try(Command command);

  // The newest message of that kind that is pending. Fails the test if there is none.
  OutboxMessage Pending(v1::OutboxKind kind) const;
  // Its kinds, in order, shortened: "EMIT", "START_CHILD", …
  std::vector<std::string> Outbox() const;
  Verdict Settle(uint64_t number, std::string_view failure_type = "");
  // Settles the start of a child as accepted, with a run id of sixteen `run`s.
  Verdict ChildStarted(uint64_t number, char run = 'c');
  // Reports the end of the child that the step of that path awaits.
  Verdict ChildClosed(std::string_view path, v1::ExecutionStatus status, std::string_view what,
                      char run = 'c');
  // Moves time on and fires what is due, until nothing more is.
  void Advance(int64_t by_ms);

  v1::TaskResult ResultFor(std::string_view path) const;
  StepKey Key(std::string_view path) const;
  bool Exists(std::string_view path) const;
  // State of the step, as DescribeExecution tells it.
  v1::StepState StateOf(std::string_view path) const;
  std::string ReasonOf(std::string_view path) const;
  // Paths of the scheduled tasks, in the order of their keys.
  std::vector<std::string> Ready() const;
  std::string PathOf(const StepKey& key) const;

  v1::ExecutionStatus status() const { return live.status(); }
  // Data of the result, or "type: message" of the failure.
  std::string ResultText() const;
  std::vector<std::string> StoryTypes() const;

  // Replaces the second shadow by a loaded snapshot of the live one.
  void Reload();
  // Off for large executions: then nothing is compared until CheckNow.
  bool check_each = true;
  // Off for long ones: the records are not kept.
  bool keep_records = true;
  void CheckNow();

  Execution live;
  Execution replayed;
  Execution reloaded;
  int64_t now_ms;
  Effects effects;  // of the last command, all its records together
  std::vector<v1::HistoryEvent> story;
  std::vector<std::string> records;       // serialised
  std::map<uint64_t, v1::Payload> blobs;  // what the store would hold
  BlobReader blob_reader;

 private:
  // What the state was before a record.
  struct Before {
    bool closed = false;
    bool compensating = false;
    bool paused = false;
    uint64_t next_outbox = 0;
  };
  Before Look() const;
  void Absorb(const Effects& from, const Before& before);
  void CheckLookUps(const Execution& shadow) const;
  void CheckCounters() const;

  std::map<StepKey, uint64_t> offered_;  // by the effects alone
};

// The payload that the task at `path` is given.
std::string InputOf(const Driver& run, std::string_view path, int index = 0);
uint32_t GenerationOf(const Driver& run, std::string_view path);
// Completes what is ready with `value` until nothing is.
void RunAll(Driver& run, std::string_view value);

}  // namespace flux::engine::testing

#endif  // FLUX_TESTS_CORE_HARNESS_H_
