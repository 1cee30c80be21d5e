// Snapshots: the whole state as one message, equal bytes for equal states.
//
// Values that several places share are written once, in Snapshot.values, each after those it is
// made of; so that a loaded execution shares what the saved one shared, and its next snapshot is
// equal byte for byte. Literals and inputs are named, as the graph and the start record hold them.
#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/core/core.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "engine/core/record.h"
#include "google/protobuf/arena.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

using internal::ExecutionState;
using internal::Frame;
using internal::ItemStatus;
using internal::LoopState;
using internal::MapState;
using internal::Parameter;
using internal::Phase;
using internal::StepExtra;
using internal::StepState;

inline constexpr uint32_t kSnapshotFormat = 1;

// Calls `visit` with every value the state holds, always in the same order.
template <typename Visit>
void ForEachValue(const ExecutionState& state, Visit visit) {
  visit(state.result);
  const auto parameters = [&](const std::vector<Parameter>& list) {
    for (const Parameter& parameter : list) visit(parameter.value);
  };
  for (const auto& [number, frame] : state.frames) {
    parameters(frame->parameters);
    for (const StepState& step : frame->steps) {
      visit(step.output);
      if (step.extra == nullptr) continue;
      if (const MapState* map = step.extra->map.get()) {
        visit(map->source);
        for (const Value& output : map->outputs) visit(output);
        parameters(map->captures);
      }
      if (const LoopState* loop = step.extra->loop.get()) {
        visit(loop->state);
        parameters(loop->captures);
      }
    }
  }
}

class Writer {
 public:
  explicit Writer(const ExecutionState& state) : s_(state) {}

  std::string Save() {
    ForEachValue(s_, [&](const Value& value) { Count(value); });
    WriteExecution();
    for (const auto& [number, frame] : s_.frames) WriteFrame(*frame, out_.add_frames());
    for (const internal::Timer& timer : s_.timers) {
      v1::SnapshotTimer* to = out_.add_timers();
      to->set_due_ms(timer.due_ms);
      to->mutable_ref()->set_frame(timer.frame);
      to->mutable_ref()->set_step(timer.step);
      to->set_timer(timer.kind);
    }
    return SerializeDeterministic(out_);
  }

 private:
  struct Shared {
    uint32_t uses = 0;
    uint32_t index = 0;  // + 1 into Snapshot.values, once written
  };

  static bool Named(const Value& value) {
    return value.kind() == Value::Kind::kPayload && value.origin() != Value::Origin::kState;
  }

  // Recursion is bounded by kListDepthMax and kSplitDepthMax.
  void Count(const Value& value) {
    if (value.none() || Named(value)) return;
    // Most values have one holder: they need no entry. (Their parts may be shared all the same.)
    if (value.unshared()) {
      CountParts(value);
      return;
    }
    Shared& shared = shared_[value.identity()];
    // An item refers to its split by index, which therefore is always written apart.
    shared.uses += value.kind() == Value::Kind::kItem ? 2 : 1;
    const bool first = shared.uses <= (value.kind() == Value::Kind::kItem ? 2u : 1u);
    if (first) CountParts(value);
  }

  void CountParts(const Value& value) {
    if (value.kind() == Value::Kind::kItem || value.kind() == Value::Kind::kSplit) {
      Count(value.base());
    } else if (value.kind() == Value::Kind::kList) {
      for (const Value& item : value.list()) Count(item);
    }
  }

  void WriteContent(const Value& value, v1::SnapshotValue* to) {
    switch (value.kind()) {
      case Value::Kind::kPayload:
        if (value.blob() != 0) {
          to->mutable_blob()->set_ordinal(value.blob());
          to->mutable_blob()->set_bytes(value.data_bytes());
        } else {
          value.AppendTo(to->mutable_payload());
        }
        return;
      case Value::Kind::kList:
        to->mutable_list();
        for (const Value& item : value.list()) Write(item, to->mutable_list()->add_items());
        return;
      case Value::Kind::kSplit:
        Write(value.base(), to->mutable_split());
        return;
      case Value::Kind::kNone:
      case Value::Kind::kItem:
        return;
    }
  }

  // The index + 1 of a value in Snapshot.values.
  uint32_t WriteShared(const Value& value) {
    if (const uint32_t index = shared_[value.identity()].index; index != 0) return index;
    // Made apart and added when it is whole: what it is made of comes before it.
    auto* content = google::protobuf::Arena::CreateMessage<v1::SnapshotValue>(&arena_);
    WriteContent(value, content);
    out_.mutable_values()->AddAllocated(content);
    const uint32_t index = static_cast<uint32_t>(out_.values_size());
    shared_[value.identity()].index = index;
    return index;
  }

  void Write(const Value& value, v1::SnapshotValue* to) {
    if (value.none()) return;
    if (Named(value)) {
      if (value.origin() == Value::Origin::kLiteral) {
        to->set_literal(value.origin_id() + 1);
      } else {
        to->set_input(value.origin_id() + 1);
      }
    } else if (value.kind() == Value::Kind::kItem) {
      to->mutable_item()->set_shared(WriteShared(value.whole()));
      to->mutable_item()->set_index(value.index());
    } else if (!value.unshared() && shared_[value.identity()].uses > 1) {
      to->set_shared(WriteShared(value));
    } else {
      WriteContent(value, to);
    }
  }

  void WriteParameter(const Parameter& parameter, v1::SnapshotValue* to) {
    switch (parameter.state) {
      case Parameter::State::kSet:
        Write(parameter.value, to);
        return;
      case Parameter::State::kPending:
        to->set_marker(v1::SNAPSHOT_MARKER_PENDING);
        return;
      case Parameter::State::kSkipped:
        to->set_marker(v1::SNAPSHOT_MARKER_SKIPPED);
        return;
    }
  }

  void WriteExecution() {
    out_.set_format(kSnapshotFormat);
    out_.set_ordinal(s_.ordinal);
    StripStarted(*s_.started, out_.mutable_started());
    out_.set_start_time_ms(s_.start_time_ms);
    out_.set_last_time_ms(s_.last_time_ms);
    out_.set_status(s_.status);
    out_.set_close_time_ms(s_.close_time_ms);
    if (!s_.result.none()) Write(s_.result, out_.mutable_result());
    if (s_.failure != nullptr) *out_.mutable_failure() = *s_.failure;
    out_.set_next_frame(s_.next_frame);
    out_.set_next_blob(s_.next_blob);
    out_.set_steps_completed(s_.steps_completed);
    out_.set_attempts_failed(s_.attempts_failed);
    if (s_.has_failed_step) {
      out_.mutable_failed_step()->set_frame(s_.failed_step.frame);
      out_.mutable_failed_step()->set_step(s_.failed_step.step);
    }
    out_.set_close_reason(s_.close_reason);
    out_.set_close_identity(s_.close_identity);
  }

  void WriteFrame(const Frame& frame, v1::SnapshotFrame* to) {
    to->set_number(frame.number);
    to->set_scope(frame.scope);
    to->set_parent_frame(frame.parent != nullptr ? frame.parent->number : 0);
    to->set_parent_step(frame.parent_step);
    to->set_item(frame.item);
    to->set_remaining(frame.remaining);
    for (const Parameter& parameter : frame.parameters) {
      WriteParameter(parameter, to->add_parameters());
    }
    for (const StepState& step : frame.steps) WriteStep(step, to->add_steps());
  }

  void WriteStep(const StepState& step, v1::SnapshotStep* to) {
    to->set_state(static_cast<uint32_t>(step.phase));
    to->set_waiting_for(step.waiting_for);
    to->set_attempt(step.attempt);
    to->set_delivery(step.delivery);
    to->set_generation(step.generation);
    to->set_scheduled_ms(step.scheduled_ms);
    to->set_ended_ms(step.ended_ms);
    to->set_first_scheduled_ms(step.first_scheduled_ms);
    if (!step.output.none()) Write(step.output, to->mutable_output());
    if (step.extra == nullptr) return;
    const StepExtra& extra = *step.extra;
    if (extra.failure != nullptr) *to->mutable_failure() = *extra.failure;
    if (extra.progress != nullptr) *to->mutable_progress() = *extra.progress;
    to->set_retry_at_ms(extra.wake_ms);
    to->set_yielding(extra.yielding);
    if (extra.map != nullptr) WriteMap(*extra.map, to->mutable_map());
    if (extra.loop != nullptr) {
      to->mutable_loop()->set_turn(extra.loop->turn);
      Write(extra.loop->state, to->mutable_loop()->mutable_state());
      for (const Parameter& capture : extra.loop->captures) {
        WriteParameter(capture, to->mutable_loop()->add_captures());
      }
    }
  }

  void WriteMap(const MapState& map, v1::SnapshotMap* to) {
    to->set_items(map.items);
    to->set_opened(map.opened);
    to->set_done(map.done);
    to->set_in_flight(map.in_flight);
    to->set_statuses(std::string(reinterpret_cast<const char*>(map.statuses.data()), map.items));
    Write(map.source, to->mutable_source());
    for (size_t i = 0; i < map.outputs.size(); ++i) {
      if (map.statuses[i] == ItemStatus::kCompleted) Write(map.outputs[i], to->add_outputs());
    }
    for (const Parameter& capture : map.captures) WriteParameter(capture, to->add_captures());
  }

  const ExecutionState& s_;
  google::protobuf::Arena arena_;
  v1::Snapshot& out_ = *google::protobuf::Arena::CreateMessage<v1::Snapshot>(&arena_);
  absl::flat_hash_map<const void*, Shared> shared_;  // looked up, never iterated
};

absl::Status Damaged(const std::string& what) {
  return absl::DataLossError(absl::StrCat("the snapshot is damaged: ", what));
}

class Reader {
 public:
  // Takes the start record out of `in`.
  Reader(v1::Snapshot& in, const BlobReader& blobs) : in_(in), blobs_(blobs) {}

  absl::StatusOr<Execution> Load(std::shared_ptr<const Graph> graph) {
    state_->graph = std::move(graph);
    FLUX_RETURN_IF_ERROR(ReadExecution());
    for (int i = 0; i < in_.values_size(); ++i) {
      FLUX_ASSIGN_OR_RETURN(Value value, ReadValue(in_.values(i)));
      values_.push_back(std::move(value));
    }
    if (in_.has_result()) {
      FLUX_ASSIGN_OR_RETURN(state_->result, ReadValue(in_.result()));
      state_->bytes += state_->result.memory_bytes();
    }
    for (const v1::SnapshotFrame& frame : in_.frames()) FLUX_RETURN_IF_ERROR(ReadFrame(frame));
    if (state_->root == nullptr) return Damaged("it has no root frame");
    FLUX_RETURN_IF_ERROR(CheckFrames());
    for (const v1::SnapshotTimer& timer : in_.timers()) {
      if (state_->FindStep({timer.ref().frame(), timer.ref().step()}) == nullptr &&
          timer.timer() != v1::TIMER_KIND_EXECUTION_TIMEOUT) {
        return Damaged("a timer belongs to no step");
      }
      state_->timers.insert(
          {timer.due_ms(), timer.ref().frame(), timer.ref().step(), timer.timer()});
    }
    return Execution(std::move(state_));
  }

 private:
  absl::Status ReadExecution() {
    ExecutionState& s = *state_;
    FLUX_RETURN_IF_ERROR(RestoreStarted(blobs_, in_.mutable_started()));
    s.started = std::make_shared<const v1::ExecutionStarted>(std::move(*in_.mutable_started()));
    const std::optional<RunId> run = RunId::FromBytes(s.started->run_id());
    if (!run.has_value()) return Damaged("its run id has not 16 bytes");
    if (s.started->inputs_size() < static_cast<int>(s.graph->scopes()[0].scope->parameters())) {
      return Damaged("it has fewer inputs than its workflow takes");
    }
    if (!v1::ExecutionStatus_IsValid(in_.status()) ||
        in_.status() == v1::EXECUTION_STATUS_UNSPECIFIED) {
      return Damaged("its status is unknown");
    }
    s.run = *run;
    s.request_hash = RequestHash(*s.started);
    s.bytes += s.started->ByteSizeLong();
    s.ordinal = in_.ordinal();
    s.start_time_ms = in_.start_time_ms();
    s.last_time_ms = in_.last_time_ms();
    s.status = in_.status();
    s.close_time_ms = in_.close_time_ms();
    if (in_.has_failure()) s.failure = std::make_unique<v1::Failure>(in_.failure());
    s.next_frame = in_.next_frame();
    s.next_blob = in_.next_blob();
    s.steps_completed = in_.steps_completed();
    s.attempts_failed = in_.attempts_failed();
    if (in_.has_failed_step()) {
      s.has_failed_step = true;
      s.failed_step = {in_.failed_step().frame(), in_.failed_step().step()};
    }
    s.close_reason = in_.close_reason();
    s.close_identity = in_.close_identity();
    return absl::OkStatus();
  }

  absl::StatusOr<Value> SharedValue(uint32_t number) const {
    if (number == 0 || number > values_.size()) {
      return Damaged(absl::StrCat("it refers to shared value ", number, " before it"));
    }
    return values_[number - 1];
  }

  // Protobuf itself refuses to parse messages that nest deeper than a hundred, which bounds the
  // recursion.
  absl::StatusOr<Value> ReadValue(const v1::SnapshotValue& from) {
    switch (from.kind_case()) {
      case v1::SnapshotValue::kPayload:
        return Value::CopyOf(from.payload());
      case v1::SnapshotValue::kBlob: {
        FLUX_ASSIGN_OR_RETURN(v1::Payload payload, blobs_(from.blob().ordinal()));
        return Value::FromPayload(std::move(payload), from.blob().ordinal());
      }
      case v1::SnapshotValue::kList: {
        std::vector<Value> items;
        items.reserve(static_cast<size_t>(from.list().items_size()));
        for (const v1::SnapshotValue& item : from.list().items()) {
          FLUX_ASSIGN_OR_RETURN(Value value, ReadValue(item));
          items.push_back(std::move(value));
        }
        absl::StatusOr<Value> list = Value::List(std::move(items));
        if (!list.ok()) return Damaged("a list nests too deep");
        return list;
      }
      case v1::SnapshotValue::kShared:
        return SharedValue(from.shared());
      case v1::SnapshotValue::kItem: {
        FLUX_ASSIGN_OR_RETURN(const Value split, SharedValue(from.item().shared()));
        if (split.kind() != Value::Kind::kSplit || from.item().index() >= split.items()) {
          return Damaged("an item is of no split payload");
        }
        return split.Item(from.item().index());
      }
      case v1::SnapshotValue::kSplit: {
        FLUX_ASSIGN_OR_RETURN(const Value base, ReadValue(from.split()));
        absl::StatusOr<Value> split = Value::Split(base);
        if (!split.ok() || split->kind() != Value::Kind::kSplit) {
          return Damaged("a payload cannot be split");
        }
        return split;
      }
      case v1::SnapshotValue::kLiteral:
        if (from.literal() == 0 || from.literal() > state_->graph->literals().size()) {
          return Damaged(absl::StrCat("the graph has no literal ", from.literal()));
        }
        return state_->graph->literals()[from.literal() - 1];
      case v1::SnapshotValue::kInput:
        if (from.input() == 0 ||
            from.input() > static_cast<uint32_t>(state_->started->inputs_size())) {
          return Damaged(absl::StrCat("there is no input ", from.input()));
        }
        return Input(from.input() - 1);
      case v1::SnapshotValue::kMarker:
      case v1::SnapshotValue::KIND_NOT_SET:
        break;
    }
    return Value();
  }

  // Each input is one value, however many hold it.
  Value Input(uint32_t index) {
    while (inputs_.size() <= index) {
      inputs_.push_back(internal::InputValue(state_->started, inputs_.size()));
    }
    return inputs_[index];
  }

  absl::Status ReadParameter(const v1::SnapshotValue& from, Parameter* to) {
    to->state = Parameter::State::kSet;
    if (from.kind_case() == v1::SnapshotValue::kMarker) {
      if (from.marker() != v1::SNAPSHOT_MARKER_PENDING &&
          from.marker() != v1::SNAPSHOT_MARKER_SKIPPED) {
        return Damaged("a parameter has an unknown marker");
      }
      to->state = from.marker() == v1::SNAPSHOT_MARKER_PENDING ? Parameter::State::kPending
                                                               : Parameter::State::kSkipped;
      return absl::OkStatus();
    }
    FLUX_ASSIGN_OR_RETURN(to->value, ReadValue(from));
    return absl::OkStatus();
  }

  absl::Status ReadFrame(const v1::SnapshotFrame& from) {
    const auto& scopes = state_->graph->scopes();
    if (from.scope() >= scopes.size()) {
      return Damaged(absl::StrCat("frame ", from.number(), " is of no scope of its graph"));
    }
    const Graph::ScopePlan& scope = scopes[from.scope()];
    if ((from.number() == 0) != (from.scope() == 0) ||
        (!state_->frames.empty() && state_->frames.rbegin()->first >= from.number()) ||
        from.number() >= std::max<uint64_t>(state_->next_frame, 1)) {
      return Damaged(absl::StrCat("frame ", from.number(), " is out of place"));
    }
    if (static_cast<size_t>(from.steps_size()) != scope.steps.size() ||
        static_cast<uint32_t>(from.parameters_size()) != scope.scope->parameters()) {
      return Damaged(absl::StrCat("frame ", from.number(), " does not fit its scope"));
    }
    Frame* parent = nullptr;
    if (from.number() != 0) {
      parent = state_->FindFrame(from.parent_frame());
      if (parent == nullptr || parent->scope != scope.owner_scope ||
          from.parent_step() != scope.owner_step) {
        return Damaged(absl::StrCat("frame ", from.number(), " hangs below no step"));
      }
    }
    Frame* frame = internal::AddFrame(*state_, from.number(), from.scope(), parent,
                                      from.parent_step(), from.item());
    frame->remaining = from.remaining();
    for (int i = 0; i < from.parameters_size(); ++i) {
      FLUX_RETURN_IF_ERROR(
          ReadParameter(from.parameters(i), &frame->parameters[static_cast<size_t>(i)]));
    }
    for (int i = 0; i < from.steps_size(); ++i) {
      FLUX_RETURN_IF_ERROR(ReadStep(from.steps(i), &frame->steps[static_cast<size_t>(i)]));
    }
    return absl::OkStatus();
  }

  absl::Status ReadStep(const v1::SnapshotStep& from, StepState* to) {
    if (from.state() < static_cast<uint32_t>(Phase::kPending) ||
        from.state() > static_cast<uint32_t>(Phase::kSkipped)) {
      return Damaged(absl::StrCat("a step has the unknown state ", from.state()));
    }
    to->phase = static_cast<Phase>(from.state());
    to->waiting_for = from.waiting_for();
    to->attempt = from.attempt();
    to->delivery = from.delivery();
    to->generation = from.generation();
    to->scheduled_ms = from.scheduled_ms();
    to->ended_ms = from.ended_ms();
    to->first_scheduled_ms = from.first_scheduled_ms();
    if (from.has_output()) {
      FLUX_ASSIGN_OR_RETURN(to->output, ReadValue(from.output()));
      state_->bytes += to->output.memory_bytes();
    }
    if (!from.has_failure() && !from.has_progress() && from.retry_at_ms() == 0 && !from.has_map() &&
        !from.has_loop()) {
      return absl::OkStatus();
    }
    StepExtra& extra = internal::ExtraOf(*state_, *to);
    if (from.has_failure()) {
      extra.failure = std::make_unique<v1::Failure>(from.failure());
      internal::Charge(*state_, extra, from.failure().message().size());
    }
    if (from.has_progress()) {
      extra.progress = std::make_unique<v1::Payload>(from.progress());
      internal::Charge(*state_, extra, from.progress().data().size());
    }
    extra.wake_ms = from.retry_at_ms();
    extra.yielding = from.yielding();
    if (from.has_map()) FLUX_RETURN_IF_ERROR(ReadMap(from.map(), &extra));
    if (from.has_loop()) {
      extra.loop = std::make_unique<LoopState>();
      extra.loop->turn = from.loop().turn();
      FLUX_ASSIGN_OR_RETURN(extra.loop->state, ReadValue(from.loop().state()));
      for (const v1::SnapshotValue& capture : from.loop().captures()) {
        FLUX_RETURN_IF_ERROR(ReadParameter(capture, &extra.loop->captures.emplace_back()));
      }
      internal::Charge(*state_, extra, sizeof(LoopState));
    }
    return absl::OkStatus();
  }

  absl::Status ReadMap(const v1::SnapshotMap& from, StepExtra* extra) {
    extra->map = std::make_unique<MapState>();
    MapState& map = *extra->map;
    FLUX_ASSIGN_OR_RETURN(map.source, ReadValue(from.source()));
    if (from.items() != map.source.items() || from.statuses().size() != from.items()) {
      return Damaged("a map's items are not those of its source");
    }
    map.items = from.items();
    map.opened = from.opened();
    map.done = from.done();
    map.in_flight = from.in_flight();
    map.statuses.resize(map.items);
    map.outputs.resize(map.items);
    internal::Charge(
        *state_, *extra,
        sizeof(MapState) + map.items * (sizeof(ItemStatus) + sizeof(Value)) +
            (map.source.kind() == Value::Kind::kSplit ? map.source.memory_bytes() : 0));
    state_->live_entries += map.items;
    int next = 0;
    for (size_t i = 0; i < map.items; ++i) {
      const auto status = static_cast<uint8_t>(from.statuses()[i]);
      if (status > static_cast<uint8_t>(ItemStatus::kSkipped)) {
        return Damaged("a map's item has an unknown status");
      }
      map.statuses[i] = static_cast<ItemStatus>(status);
      if (map.statuses[i] != ItemStatus::kCompleted) continue;
      if (next >= from.outputs_size()) return Damaged("a map has too few outputs");
      FLUX_ASSIGN_OR_RETURN(map.outputs[i], ReadValue(from.outputs(next++)));
      internal::Charge(*state_, *extra, map.outputs[i].memory_bytes());
    }
    if (next != from.outputs_size()) return Damaged("a map has too many outputs");
    for (const v1::SnapshotValue& capture : from.captures()) {
      FLUX_RETURN_IF_ERROR(ReadParameter(capture, &map.captures.emplace_back()));
    }
    return absl::OkStatus();
  }

  // What Apply takes for granted of a frame's owner.
  absl::Status CheckFrames() const {
    for (const auto& [number, frame] : state_->frames) {
      if (frame->parent != nullptr) {
        const StepExtra& owner = *frame->parent->steps[frame->parent_step].extra;
        const Graph::Role role = state_->Scope(*frame).role;
        const bool fits = role == Graph::Role::kMapItem
                              ? owner.map != nullptr && frame->item < owner.map->items
                              : (role != Graph::Role::kLoopTurn || owner.loop != nullptr) &&
                                    owner.first_child == owner.last_child;
        if (!fits) return Damaged(absl::StrCat("frame ", number, " does not fit its owner"));
      }
      for (const StepState& step : frame->steps) {
        if (step.extra != nullptr && step.extra->yielding && step.extra->map == nullptr &&
            step.extra->loop == nullptr) {
          return Damaged("a step yields that is no map or loop");
        }
      }
    }
    return absl::OkStatus();
  }

  v1::Snapshot& in_;
  const BlobReader& blobs_;
  std::unique_ptr<ExecutionState> state_ = std::make_unique<ExecutionState>();
  std::vector<Value> values_;
  std::vector<Value> inputs_;
};

}  // namespace

std::string SaveSnapshot(const Execution& execution) { return Writer(execution.state()).Save(); }

absl::StatusOr<Execution> LoadSnapshot(std::shared_ptr<const Graph> graph, std::string_view bytes,
                                       const BlobReader& blobs) {
  google::protobuf::Arena arena;
  auto& snapshot = *google::protobuf::Arena::CreateMessage<v1::Snapshot>(&arena);
  if (!snapshot.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Damaged(absl::StrCat("its ", bytes.size(), " bytes cannot be parsed"));
  }
  if (snapshot.format() > kSnapshotFormat || snapshot.format() == 0) {
    return absl::DataLossError(absl::StrCat("the snapshot has format ", snapshot.format(),
                                            ", this version reads up to ", kSnapshotFormat,
                                            ": it was written by a newer one"));
  }
  return Reader(snapshot, blobs).Load(std::move(graph));
}

}  // namespace flux::engine
