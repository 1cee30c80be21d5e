// A map step: its body once an item of a list, at most max_parallel at a time.
//
//   state   | input                         | then
//   --------+-------------------------------+-----------------------------------------------------
//   pending | inputs settled, items         | waiting: the first max_parallel items open
//   pending | inputs settled, an empty list | completed: an empty list
//   pending | inputs settled, not a list    | flux.bad_projection
//   pending | a required input skipped      | skipped
//   waiting | an item's body completed      | its output is kept, the next item opens
//   waiting | an item's body was skipped    | left out of the list, the next item opens
//   waiting | the last item's body is done  | completed: the list of outputs in the items' order
//   waiting | an item failed                | the others are dropped; as a failure of the step
//   waiting | too many frames in one record | yields: a timer due at once goes on
//
// Items are slices of their source, which is kept once; a done item is a status byte and a value.
// No record and no step of derivation is O(items) but the first and the last.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {

void Machine::StartMap(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  auto map = std::make_unique<MapState>();
  Value list;
  std::string error;
  if (ReadInput(*frame, plan.inputs[0], &list, &error) != Read::kError) {
    absl::StatusOr<Value> split = Value::Split(list);
    if (split.ok()) {
      map->source = *std::move(split);
    } else {
      error = std::string(Message(split.status()));
    }
  }
  if (!error.empty()) {
    error = absl::StrCat("the list to map over cannot be read: ", error);
  } else {
    ReadParameters(*frame, plan.inputs, 1, &map->captures, &error);
  }
  if (!error.empty()) {
    FailStep(frame, step, MakeFailure(kBadProjection, error));
    return;
  }
  map->items = map->source.items();
  map->statuses.resize(map->items);
  map->outputs.resize(map->items);
  frame->steps[step].phase = Phase::kWaiting;
  StepExtra& extra = Extra(frame, step);
  Charge(s_, extra,
         sizeof(MapState) + map->items * (sizeof(ItemStatus) + sizeof(Value)) +
             (map->source.kind() == Value::Kind::kSplit ? map->source.memory_bytes() : 0));
  s_.live_entries += map->items;
  extra.map = std::move(map);
  if (v1::HistoryEvent* event = TellStep("map.opened", *frame, step, /*derived=*/true)) {
    event->set_detail(absl::StrCat(extra.map->items, " items"));
  }
  OpenItems(frame, step);
}

void Machine::OpenItems(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  StepExtra& extra = *frame->steps[step].extra;
  MapState& map = *extra.map;
  const uint32_t body = plan.step->map().body();
  while (map.opened < map.items && map.in_flight < plan.max_parallel && !extra.yielding) {
    if (MustYield()) {
      Yield(frame, step);
      return;
    }
    const uint64_t item = map.opened++;
    ++map.in_flight;
    map.statuses[item] = ItemStatus::kOpen;
    std::vector<Parameter> parameters;
    parameters.reserve(map.captures.size() + 1);
    parameters.push_back({Parameter::State::kSet, map.source.Item(item)});
    parameters.insert(parameters.end(), map.captures.begin(), map.captures.end());
    OpenFrame(frame, step, body, item, std::move(parameters));
  }
  if (map.done < map.items) return;
  std::vector<Value> outputs = std::move(map.outputs);
  size_t kept = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (map.statuses[i] != ItemStatus::kCompleted) continue;
    if (kept != i) outputs[kept] = std::move(outputs[i]);
    ++kept;
  }
  outputs.resize(kept);
  absl::StatusOr<Value> list = Value::List(std::move(outputs));
  if (!list.ok()) {
    FailStep(frame, step, MakeFailure(kListDepthLimit, Message(list.status())));
    return;
  }
  CompleteStep(frame, step, *std::move(list));
}

void Machine::ItemDone(Frame* item, Read read, Value output) {
  Frame* frame = item->parent;
  const uint32_t step = item->parent_step;
  const uint64_t index = item->item;
  if (telling()) {
    v1::HistoryEvent* event =
        Tell(read == Read::kSkipped ? "item.skipped" : "item.completed", /*derived=*/true);
    event->set_step(FramePath(s_, *item));
  }
  DropFrame(item);
  StepExtra& extra = *frame->steps[step].extra;
  MapState& map = *extra.map;
  map.statuses[index] = read == Read::kSkipped ? ItemStatus::kSkipped : ItemStatus::kCompleted;
  Charge(s_, extra, output.memory_bytes());
  map.outputs[index] = std::move(output);
  --map.in_flight;
  ++map.done;
  OpenItems(frame, step);
}

}  // namespace flux::engine::internal
