// A map step: its body once an item of a list, at most max_parallel at a time.
//
//   state   | input                          | then
//   --------+--------------------------------+----------------------------------------------------
//   pending | inputs settled, items          | waiting: the first max_parallel items open
//   pending | inputs settled, an empty list  | completed: an empty list
//   pending | inputs settled, not a list     | flux.bad_projection
//   pending | inputs settled, over pages     | waiting: the first page is fetched
//   pending | a required input skipped       | skipped
//   waiting | an item's body completed       | its output is kept, the next item opens
//   waiting | an item's body was skipped     | left out of the list, the next item opens
//   waiting | the last item's body is done   | completed: the list of outputs in the items' order
//   waiting | `first` items completed        | the others are dropped; completed likewise
//   waiting | an item failed, few enough     | left out of the list, the next item opens
//   waiting | an item failed, too many       | the others are dropped; as a failure of the step
//   waiting | a page came                    | its items are added; none left: completed likewise
//   waiting | a page was skipped             | as the last page, without items
//   waiting | the last page came, and more   | flux.too_many_failures
//           |   items failed than their share |
//   waiting | a page that is none            | flux.bad_projection
//   waiting | fewer items than max_parallel  | the next page is fetched
//   waiting | too many frames in one record  | yields: a timer due at once goes on
//
// Items are slices of their source, which is kept once; a done item is a status byte and a value. A
// page is kept until its last item is opened. No record and no step of derivation is O(items) but
// the first and the last.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {
namespace {

constexpr size_t kItemBytes = sizeof(ItemStatus) + sizeof(Value);

size_t SourceBytes(const Value& source) {
  return source.kind() == Value::Kind::kSplit ? source.memory_bytes() : 0;
}

}  // namespace

void Machine::StartMap(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  const bool paged = plan.step->map().has_page_body();
  auto map = std::make_unique<MapState>();
  Value list;
  std::string error;
  if (ReadInput(*frame, plan.inputs[0], &list, &error) != Read::kError) {
    if (paged) {
      map->cursor = std::move(list);
      map->last_page = false;
    } else {
      absl::StatusOr<Value> split = Value::Split(list);
      if (split.ok()) {
        map->source = *std::move(split);
      } else {
        error = std::string(Message(split.status()));
      }
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
  map->items = paged ? 0 : map->source.items();
  map->statuses.resize(map->items);
  map->outputs.resize(map->items);
  frame->steps[step].phase = Phase::kWaiting;
  StepExtra& extra = Extra(frame, step);
  Charge(s_, extra, sizeof(MapState) + map->items * kItemBytes + SourceBytes(map->source));
  s_.live_entries += map->items;
  extra.map = std::move(map);
  if (v1::HistoryEvent* event = TellStep("map.opened", *frame, step, /*derived=*/true)) {
    event->set_detail(paged ? "page by page" : absl::StrCat(extra.map->items, " items"));
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
    if (map.pages.empty()) {
      parameters.push_back({Parameter::State::kSet, map.source.Item(item)});
    } else {
      const MapPage& page = map.pages.front();
      parameters.push_back({Parameter::State::kSet, page.source.Item(item - page.first)});
      if (map.opened == page.first + page.source.items()) map.pages.pop_front();
    }
    parameters.insert(parameters.end(), map.captures.begin(), map.captures.end());
    OpenFrame(frame, step, body, item, std::move(parameters));
  }
  if (!map.last_page && !map.fetching && map.items - map.opened < plan.max_parallel) {
    if (MustYield()) {
      if (!extra.yielding) Yield(frame, step);
      return;
    }
    FetchPage(frame, step);
    return;
  }
  if (map.done == map.items && map.last_page) CompleteMap(frame, step);
}

void Machine::FetchPage(Frame* frame, uint32_t step) {
  MapState& map = *frame->steps[step].extra->map;
  map.fetching = true;
  std::vector<Parameter> parameters;
  parameters.reserve(map.captures.size() + 1);
  parameters.push_back({Parameter::State::kSet, map.cursor});
  parameters.insert(parameters.end(), map.captures.begin(), map.captures.end());
  OpenFrame(frame, step, Plan(*frame, step).step->map().page_body(), map.items,
            std::move(parameters));
}

void Machine::PageDone(Frame* page, Read read, Value value) {
  Frame* frame = page->parent;
  const uint32_t step = page->parent_step;
  DropFrame(page);
  StepExtra& extra = *frame->steps[step].extra;
  MapState& map = *extra.map;
  map.fetching = false;
  absl::StatusOr<Value> items = Value();
  if (read != Read::kSkipped) items = Project(value, "/items");
  if (items.ok()) items = Value::Split(*items);
  if (!items.ok()) {
    FailStep(frame, step,
             MakeFailure(kBadProjection, absl::StrCat("a page of items cannot be read: ",
                                                      items.status().message())));
    return;
  }
  absl::StatusOr<bool> ends = true;
  if (read != Read::kSkipped) {
    if (absl::StatusOr<Value> next = Project(value, "/next"); next.ok()) {
      ends = EqualsJson(*next, "null");
      map.cursor = *std::move(next);
    }
  }
  map.last_page = !ends.ok() || *ends;
  if (map.last_page) map.cursor = Value();
  const size_t count = items->items();
  if (v1::HistoryEvent* event = TellStep("map.page", *frame, step, /*derived=*/true)) {
    event->set_detail(absl::StrCat(count, " items", map.last_page ? ", the last" : ""));
  }
  if (count > 0) {
    Charge(s_, extra, count * kItemBytes);
    s_.live_entries += count;
    map.pages.push_back({map.items, *std::move(items)});
    map.items += count;
    map.statuses.resize(map.items);
    map.outputs.resize(map.items);
  }
  if (const uint64_t tolerated = Tolerated(*frame, step); map.last_page && map.failed > tolerated) {
    FailStep(
        frame, step,
        MakeFailure(kTooManyFailures, absl::StrCat(map.failed, " of ", map.items, " items failed; ",
                                                   tolerated, " are tolerated")));
    return;
  }
  OpenItems(frame, step);
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
  if (read != Read::kSkipped) ++map.completed;
  Charge(s_, extra, output.memory_bytes());
  map.outputs[index] = std::move(output);
  --map.in_flight;
  ++map.done;
  const uint64_t first = Plan(*frame, step).step->map().first();
  if (first != 0 && map.completed >= first) {
    DropChildren(frame, step);
    CompleteMap(frame, step);
    return;
  }
  OpenItems(frame, step);
}

uint64_t Machine::Tolerated(const Frame& frame, uint32_t step) const {
  const v1::MapStep& spec = Plan(frame, step).step->map();
  const MapState& map = *frame.steps[step].extra->map;
  return std::max<uint64_t>(spec.tolerated_failures(),
                            map.items * spec.tolerated_failure_permille() / 1000);
}

bool Machine::TolerateItem(Frame* item, const v1::Failure& failure) {
  Frame* frame = item->parent;
  const uint32_t step = item->parent_step;
  MapState& map = *frame->steps[step].extra->map;
  // Of how many items it is a share is known with the last page.
  const bool known =
      map.last_page || Plan(*frame, step).step->map().tolerated_failure_permille() == 0;
  if (known && map.failed >= Tolerated(*frame, step)) return false;
  ++map.failed;
  if (telling()) {
    v1::HistoryEvent* event = Tell("item.failed", /*derived=*/true);
    event->set_step(FramePath(s_, *item));
    *event->mutable_failure() = failure;
  }
  map.statuses[item->item] = ItemStatus::kFailed;
  DropFrame(item);
  --map.in_flight;
  ++map.done;
  OpenItems(frame, step);
  return true;
}

void Machine::CompleteMap(Frame* frame, uint32_t step) {
  MapState& map = *frame->steps[step].extra->map;
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

}  // namespace flux::engine::internal
