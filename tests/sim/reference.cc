#include "tests/sim/reference.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "tests/sim/script.h"

namespace flux::sim {
namespace {

using Tree =
    nlohmann::ordered_json;  // keeps members in their order, so that text comes out as it was

constexpr char kBadProjection[] = "flux.bad_projection";
constexpr size_t kListDepthMax = 32;

Foreseen Own(std::string type) {
  Foreseen foreseen;
  foreseen.failure.set_type(std::move(type));
  foreseen.failure.set_non_retriable(true);
  foreseen.failure.set_source("coordinator");
  foreseen.own_words = true;
  return foreseen;
}

Ending BadProjection() { return Ending::Failed({Own(kBadProjection)}); }

// ---- values ----

// As JSON; nothing reads as null. None: it is not JSON.
std::optional<Tree> ParseJson(const Datum& datum) {
  if (datum.kind == Datum::Kind::kNone) return Tree(nullptr);
  if (datum.kind == Datum::Kind::kList) return std::nullopt;
  if (datum.payload.encoding() != v1::ENCODING_JSON) return std::nullopt;
  Tree tree = Tree::parse(datum.payload.data(), nullptr, /*allow_exceptions=*/false);
  if (tree.is_discarded()) return std::nullopt;
  return tree;
}

Datum FromJson(const Tree& tree) { return Datum::Of(Json(tree.dump())); }

// Pointers of the generated graphs name members and indices plainly, without escapes.
const Tree* Find(const Tree& tree, const std::string& pointer) {
  const Tree* at = &tree;
  for (size_t from = 1; from <= pointer.size();) {
    const size_t end = std::min(pointer.find('/', from), pointer.size());
    const std::string token = pointer.substr(from, end - from);
    if (at->is_object() && at->contains(token)) {
      at = &(*at)[token];
    } else if (at->is_array() && token.size() == 1 && token[0] >= '0' &&
               static_cast<size_t>(token[0] - '0') < at->size()) {
      at = &(*at)[static_cast<size_t>(token[0] - '0')];
    } else {
      return nullptr;
    }
    from = end + 1;
  }
  return at;
}

// None: it leads nowhere. Nothing stays nothing.
std::optional<Datum> Project(const Datum& datum, const std::string& pointer) {
  if (pointer.empty() || datum.kind == Datum::Kind::kNone) return datum;
  const std::optional<Tree> tree = ParseJson(datum);
  if (!tree) return std::nullopt;
  const Tree* found = Find(*tree, pointer);
  if (found == nullptr) return std::nullopt;
  return FromJson(*found);
}

// None: not a list.
std::optional<std::vector<Datum>> Items(const Datum& datum) {
  std::vector<Datum> items;
  if (datum.kind == Datum::Kind::kNone) return items;
  if (datum.kind == Datum::Kind::kList) return datum.items;
  if (datum.payload.encoding() == v1::ENCODING_LIST) {
    v1::PayloadList list;
    if (!list.ParseFromString(datum.payload.data())) return std::nullopt;
    for (const v1::Payload& item : list.items()) items.push_back(Datum::Of(item));
    return items;
  }
  const std::optional<Tree> tree = ParseJson(datum);
  if (!tree || !tree->is_array()) return std::nullopt;
  for (const Tree& item : *tree) items.push_back(FromJson(item));
  return items;
}

size_t DepthOf(const Datum& datum) {
  if (datum.kind != Datum::Kind::kList) return 0;
  size_t depth = 0;
  for (const Datum& item : datum.items) depth = std::max(depth, DepthOf(item));
  return depth + 1;
}

Ending MakeList(std::vector<Datum> items) {
  Datum list = Datum::ListOf(std::move(items));
  if (DepthOf(list) > kListDepthMax) return Ending::Failed({Own("flux.limit.list_depth")});
  return Ending::Value(std::move(list));
}

// What a catch body is given.
Datum FailureDatum(const v1::Failure& failure) {
  Tree tree;
  tree["type"] = failure.type();
  tree["message"] = failure.message();
  tree["non_retriable"] = failure.non_retriable();
  tree["source"] = failure.source();
  return FromJson(tree);
}

void Add(std::vector<Foreseen>* all, const std::vector<Foreseen>& more) {
  all->insert(all->end(), more.begin(), more.end());
}

// ---- the walk ----

class Interpreter {
 public:
  Interpreter(const v1::Definition& definition, Oracle* oracle)
      : definition_(definition), oracle_(*oracle) {}

  // `steps`, if given, is told how the steps ended.
  Ending Scope(uint32_t index, const std::vector<Ending>& parameters, const std::string& place,
               std::vector<Ending>* steps = nullptr) {
    const v1::Scope& scope = definition_.scopes(static_cast<int>(index));
    Frame frame{parameters, {}, {}, place};
    for (const v1::Step& step : scope.steps()) {
      frame.steps.push_back(Step(frame, step));
      frame.names.push_back(step.name());
    }
    if (steps != nullptr) *steps = frame.steps;

    std::vector<Foreseen> failures;
    for (const Ending& step : frame.steps) Add(&failures, step.failures);
    if (!failures.empty()) return Ending::Failed(std::move(failures));
    for (const Ending& step : frame.steps) {
      if (!step.settled()) return Ending::Never();
    }
    if (!scope.has_result()) return Ending::Value(Datum());
    return Read(frame, scope.result());
  }

 private:
  // One instance of a scope.
  struct Frame {
    const std::vector<Ending>& parameters;
    std::vector<Ending> steps;       // of the steps walked so far
    std::vector<std::string> names;  // likewise
    std::string place;               // "codes[17]."; empty: the root
  };

  static Ending Source(const Frame& frame, const v1::Input& input) {
    switch (input.source_case()) {
      case v1::Input::kStep:
        return frame.steps[input.step()];
      case v1::Input::kParameter:
        return frame.parameters[input.parameter()];
      default:
        return Ending::Value(Datum::Of(input.literal()));
    }
  }

  // kNever also where the source failed: whoever reads it does not get to run.
  static Ending Read(const Frame& frame, const v1::Input& input) {
    Ending source = Source(frame, input);
    if (!source.settled()) return Ending::Never();
    if (source.kind == Ending::Kind::kSkipped) {
      return input.optional() ? Ending::Value(Datum()) : source;
    }
    std::optional<Datum> projected = Project(source.value, input.pointer());
    if (!projected) return BadProjection();
    return Ending::Value(*std::move(projected));
  }

  // The path of the step that an input comes from, by way of the bodies it was given to.
  static std::string OriginOf(const Frame& frame, const v1::Input& input) {
    switch (input.source_case()) {
      case v1::Input::kStep:
        return frame.place + frame.names[input.step()];
      case v1::Input::kParameter:
        return frame.parameters[input.parameter()].origin;
      default:
        return "";
    }
  }

  // As a body's parameters. `failed` is set if one of them cannot be read.
  template <typename Inputs>
  static std::vector<Ending> Parameters(const Frame& frame, const Inputs& inputs, int from,
                                        bool* failed) {
    std::vector<Ending> parameters;
    for (int i = from; i < inputs.size(); ++i) {
      parameters.push_back(Read(frame, inputs[i]));
      parameters.back().origin = OriginOf(frame, inputs[i]);
      if (parameters.back().kind == Ending::Kind::kFailed) *failed = true;
    }
    return parameters;
  }

  // How many of its inputs, from the first, a step waits for before it begins.
  static int Awaited(const v1::Step& step) {
    if (step.has_block()) return 0;
    if (step.has_switch_()) return 1;
    return step.inputs_size();
  }

  Ending Step(const Frame& frame, const v1::Step& step) {
    const std::string path = frame.place + step.name();
    if (std::optional<Ending> decreed = oracle_.Decreed(path)) return *std::move(decreed);
    if (oracle_.Tolerated(path)) return Ending::Skipped();
    if (IsEarly(step)) return EarlyJoin(frame, step, path);
    for (const uint32_t after : step.after()) {
      if (!frame.steps[after].settled()) return Ending::Never();
    }
    int skipped = 0;
    bool required_skipped = false;
    for (int i = 0; i < Awaited(step); ++i) {
      const Ending source = Source(frame, step.inputs(i));
      if (!source.settled()) return Ending::Never();
      if (source.kind != Ending::Kind::kSkipped) continue;
      ++skipped;
      if (!step.inputs(i).optional()) required_skipped = true;
    }
    if (required_skipped || (skipped > 0 && skipped == Awaited(step))) return Ending::Skipped();

    return AfterCatches(frame, step, path, Run(frame, step, path));
  }

  Ending Run(const Frame& frame, const v1::Step& step, const std::string& path) {
    switch (step.kind_case()) {
      case v1::Step::kTask:
        return Task(frame, step, path);
      case v1::Step::kSleep:
        return Sleep(frame, step);
      case v1::Step::kMap:
        return Map(frame, step, path);
      case v1::Step::kLoop:
        return Loop(frame, step, path);
      case v1::Step::kBlock:
        return Body(frame, step, step.block().body(), 0, path);
      case v1::Step::kSwitch:
        return Switch(frame, step, path);
      case v1::Step::kJoin:
        return Join(frame, step);
      case v1::Step::kFail:
        return Fail(step);
      case v1::Step::kWaitEvent:
        return oracle_.Event(path, step);
      case v1::Step::kChild:
        return Child(frame, step, path);
      case v1::Step::kEmit:
        return oracle_.Emit(path);
      case v1::Step::kSkip:
        return Ending::Skipped();
      default:
        return Ending::Never();
    }
  }

  // A failure that a clause takes is replaced by what the clause's body comes to.
  Ending AfterCatches(const Frame& frame, const v1::Step& step, const std::string& path,
                      Ending ending) {
    if (ending.kind != Ending::Kind::kFailed) return ending;
    std::vector<Foreseen> caught, uncaught;
    for (const Foreseen& failure : ending.failures) {
      (Clause(step, failure.failure.type()) >= 0 ? caught : uncaught).push_back(failure);
    }
    // A task that gives up is set aside; it is the only candidate for its failure. The steps of
    // what it went on as say for themselves whether they are.
    const bool parks = step.on_exhausted() == v1::ON_EXHAUSTED_PARK && !ending.of_fragment;
    if (caught.empty() && parks) return Ending::Never();
    if (caught.empty()) return ending;
    const std::optional<v1::Failure> seen = oracle_.Caught(path);
    v1::Failure failure = caught[0].failure;
    if (seen) {
      const bool foreseen = std::any_of(caught.begin(), caught.end(),
                                        [&](const Foreseen& each) { return each.Is(*seen); });
      // Nothing that could have failed here failed like that.
      if (!foreseen) return Ending::Failed({Own("sim.unforeseen_catch")});
      failure = *seen;
    } else if (!uncaught.empty()) {
      ending.failures = std::move(uncaught);
      return ending;
    }
    const v1::CatchClause& clause = step.catches(Clause(step, failure.type()));
    bool failed = false;
    std::vector<Ending> parameters = Parameters(frame, clause.captures(), 0, &failed);
    if (failed) return BadProjection();
    parameters.insert(parameters.begin(), Ending::Value(FailureDatum(failure)));
    return Scope(clause.body(), parameters, path + ".catch.");
  }

  static int Clause(const v1::Step& step, const std::string& type) {
    for (int i = 0; i < step.catches_size(); ++i) {
      const auto& types = step.catches(i).types();
      if (types.empty() || std::find(types.begin(), types.end(), type) != types.end()) return i;
    }
    return -1;
  }

  // Its pointers are for the worker to follow.
  Ending Task(const Frame& frame, const v1::Step& step, const std::string& path) {
    std::vector<Datum> inputs;
    for (const v1::Input& input : step.inputs()) inputs.push_back(Source(frame, input).value);
    TaskEnd end = oracle_.Task(path, step, inputs);
    if (end.fragment == nullptr) return std::move(end.ending);
    std::vector<Ending> parameters;
    for (const v1::Payload& input : end.inputs)
      parameters.push_back(Ending::Value(Datum::Of(input)));
    Ending ending =
        Interpreter(*end.fragment, &oracle_).Scope(0, parameters, oracle_.FragmentPlace(path));
    ending.of_fragment = true;
    return ending;
  }

  Ending Child(const Frame& frame, const v1::Step& step, const std::string& path) {
    std::vector<Datum> inputs;
    for (const v1::Input& input : step.inputs()) {
      Ending read = Read(frame, input);
      if (read.kind == Ending::Kind::kFailed) return read;
      inputs.push_back(std::move(read.value));
    }
    return oracle_.Child(path, step, inputs);
  }

  static Ending Sleep(const Frame& frame, const v1::Step& step) {
    if (step.inputs_size() == 0) return Ending::Value(Datum());
    const Ending duration = Read(frame, step.inputs(0));
    if (duration.kind == Ending::Kind::kFailed) return duration;
    const std::optional<Tree> tree = ParseJson(duration.value);
    if (!tree || !tree->is_number_unsigned()) return BadProjection();
    return Ending::Value(Datum());
  }

  // The items of a map, page by page if it has a page body; and how the fetching of them ended.
  std::vector<Datum> ItemsOf(const v1::Step& step, const Datum& source,
                             std::vector<Ending> parameters, const std::string& path,
                             Ending* fetched) {
    *fetched = Ending::Value(Datum());
    if (!step.map().has_page_body()) {
      std::optional<std::vector<Datum>> items = Items(source);
      if (!items) *fetched = BadProjection();
      return std::move(items).value_or(std::vector<Datum>());
    }
    std::vector<Datum> all;
    parameters[0] = Ending::Value(source);
    while (true) {
      const Ending page = Scope(step.map().page_body(), parameters, path + "[page].");
      if (page.kind == Ending::Kind::kSkipped) return all;
      if (page.kind != Ending::Kind::kValue) {
        *fetched = page;
        return all;
      }
      const std::optional<Datum> projected = Project(page.value, "/items");
      const std::optional<std::vector<Datum>> items = projected ? Items(*projected) : std::nullopt;
      if (!items) {
        *fetched = BadProjection();
        return all;
      }
      all.insert(all.end(), items->begin(), items->end());
      const std::optional<Datum> next = Project(page.value, "/next");
      const std::optional<Tree> cursor = next ? ParseJson(*next) : std::nullopt;
      if (!cursor || cursor->is_null()) return all;
      parameters[0] = Ending::Value(*next);
    }
  }

  Ending Map(const Frame& frame, const v1::Step& step, const std::string& path) {
    const v1::MapStep& map = step.map();
    const Ending source = Read(frame, step.inputs(0));
    if (source.kind == Ending::Kind::kFailed) return source;
    bool failed = false;
    std::vector<Ending> parameters = Parameters(frame, step.inputs(), 1, &failed);
    if (failed) return BadProjection();
    parameters.insert(parameters.begin(), Ending());
    Ending fetched;
    const std::vector<Datum> items = ItemsOf(step, source.value, parameters, path, &fetched);
    const size_t parallel = map.max_parallel() == 0 ? SIZE_MAX : map.max_parallel();
    // Done with the first of them, whichever those were.
    const bool early =
        map.first() > 0 && oracle_.Completed(path).has_value() && !oracle_.Caught(path);

    std::vector<Datum> outputs;
    std::vector<Foreseen> failures;
    size_t never = 0, tolerated = 0, failing = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      if (never >= parallel) break;  // the places in flight are taken for good
      const std::string place = absl::StrCat(path, "[", i, "]");
      if (oracle_.Tolerated(place)) {
        ++tolerated;
        continue;
      }
      if (early && !oracle_.Completed(place)) continue;
      parameters[0] = Ending::Value(items[i]);
      Ending item = Scope(map.body(), parameters, place + ".");
      if (item.kind == Ending::Kind::kFailed) {
        Add(&failures, item.failures);
        ++failing;
      }
      if (item.kind == Ending::Kind::kNever) ++never;
      if (item.kind == Ending::Kind::kValue) outputs.push_back(std::move(item.value));
    }
    const size_t allowed = std::max<size_t>(map.tolerated_failures(),
                                            items.size() * map.tolerated_failure_permille() / 1000);
    if (tolerated > allowed || (early && outputs.size() > map.first())) {
      return Ending::Failed({Own("sim.too_many")});
    }
    if (tolerated + failing <= allowed) failures.clear();
    if (!early) {
      Add(&failures, fetched.failures);
      if (fetched.kind == Ending::Kind::kNever) ++never;
      if (map.first() > 0 && outputs.size() >= map.first() && failures.empty()) {
        return Ending::Failed({Own("sim.too_late")});
      }
    }
    if (!failures.empty()) return Ending::Failed(std::move(failures));
    if (never > 0) return Ending::Never();
    return MakeList(std::move(outputs));
  }

  Ending Loop(const Frame& frame, const v1::Step& step, const std::string& path) {
    const v1::LoopStep& loop = step.loop();
    bool failed = false;
    std::vector<Ending> parameters = Parameters(frame, step.inputs(), 0, &failed);
    if (failed) return BadProjection();
    for (uint64_t turn = 0;; ++turn) {
      const std::string place = absl::StrCat(path, "[", turn, "].");
      Frame inner{parameters, {}, {}, place};
      Ending next = Scope(loop.body(), parameters, place, &inner.steps);
      if (next.kind != Ending::Kind::kValue) return next;
      if (loop.has_done()) {
        // Read in the frame of the turn.
        const Ending done = Read(inner, loop.done());
        if (done.kind != Ending::Kind::kValue) return done;
        const std::optional<Tree> tree = ParseJson(done.value);
        if (!tree) return BadProjection();
        if (*tree == true) return next;
      }
      if (turn + 1 == loop.turns()) return next;
      parameters[0] = std::move(next);
    }
  }

  Ending Switch(const Frame& frame, const v1::Step& step, const std::string& path) {
    const v1::SwitchStep& spec = step.switch_();
    const Ending condition = Read(frame, step.inputs(0));
    if (condition.kind == Ending::Kind::kFailed) return condition;
    for (const v1::SwitchStep::Case& one : spec.cases()) {
      const std::optional<Tree> tree = ParseJson(condition.value);
      if (!tree) return BadProjection();
      if (*tree == Tree::parse(one.match().data())) return Body(frame, step, one.body(), 1, path);
    }
    if (spec.has_default_body()) return Body(frame, step, spec.default_body(), 1, path);
    return Ending::Skipped();
  }

  Ending Body(const Frame& frame, const v1::Step& step, uint32_t body, int from,
              const std::string& path) {
    bool failed = false;
    const std::vector<Ending> parameters = Parameters(frame, step.inputs(), from, &failed);
    if (failed) return BadProjection();
    return Scope(body, parameters, path + ".");
  }

  static Ending Join(const Frame& frame, const v1::Step& step) {
    std::vector<Datum> items;
    for (const v1::Input& input : step.inputs()) {
      if (Source(frame, input).kind == Ending::Kind::kSkipped) continue;
      Ending item = Read(frame, input);
      if (item.kind == Ending::Kind::kFailed) return item;
      items.push_back(std::move(item.value));
    }
    return MakeList(std::move(items));
  }

  static bool IsEarly(const v1::Step& step) {
    return step.has_join() && (step.join().first() > 0 || step.join().tolerated_failures() > 0);
  }

  // Done with what had completed by then; which that was is a matter of time.
  Ending EarlyJoin(const Frame& frame, const v1::Step& step, const std::string& path) {
    const std::optional<uint64_t> done_at =
        oracle_.Caught(path) ? std::nullopt : oracle_.Completed(path);
    std::vector<Datum> items;
    bool all = true;
    for (const v1::Input& input : step.inputs()) {
      const Ending source = Source(frame, input);
      all = all && source.settled();
      if (source.kind != Ending::Kind::kValue) continue;
      // A body may begin before all that it is given is there.
      if (const std::string origin = OriginOf(frame, input); done_at && !origin.empty()) {
        // Skipped: what reads it as optional is given nothing.
        const auto completed = oracle_.Completed(origin);
        const auto at = completed ? completed : oracle_.Skipped(origin);
        if (!at || *at > *done_at) continue;
      }
      Ending item = Read(frame, input);
      if (item.kind == Ending::Kind::kFailed) return AfterCatches(frame, step, path, item);
      items.push_back(std::move(item.value));
    }
    const bool enough = step.join().first() > 0 && items.size() >= step.join().first();
    if (!all && !enough) return Ending::Never();
    return MakeList(std::move(items));
  }

  static Ending Fail(const v1::Step& step) {
    Foreseen foreseen;
    foreseen.failure = step.fail().failure();
    foreseen.failure.set_non_retriable(true);
    if (foreseen.failure.source().empty()) foreseen.failure.set_source(step.name());
    return Ending::Failed({std::move(foreseen)});
  }

  const v1::Definition& definition_;
  Oracle& oracle_;
};

}  // namespace

Datum Datum::Of(const v1::Payload& payload) {
  Datum datum;
  if (payload.encoding() == v1::ENCODING_NONE) return datum;
  datum.kind = Kind::kPayload;
  datum.payload = payload;
  return datum;
}

Datum Datum::ListOf(std::vector<Datum> items) {
  Datum datum;
  datum.kind = Kind::kList;
  datum.items = std::move(items);
  return datum;
}

v1::Payload Datum::ToPayload() const {
  if (kind == Kind::kPayload) return payload;
  if (kind == Kind::kList) {
    std::vector<v1::Payload> list;
    for (const Datum& item : items) list.push_back(item.ToPayload());
    return sim::ListOf(list);
  }
  v1::Payload none;
  none.set_encoding(v1::ENCODING_NONE);
  return none;
}

bool Foreseen::Is(const v1::Failure& seen) const {
  return failure.type() == seen.type() && failure.non_retriable() == seen.non_retriable() &&
         failure.source() == seen.source() && (own_words || failure.message() == seen.message());
}

Ending Ending::Value(Datum value) { return {Kind::kValue, std::move(value), {}}; }
Ending Ending::Skipped() { return {Kind::kSkipped, {}, {}}; }
Ending Ending::Failed(std::vector<Foreseen> failures) {
  return {Kind::kFailed, {}, std::move(failures)};
}
Ending Ending::Never() { return {}; }

Ending Interpret(const v1::Definition& definition, const std::vector<v1::Payload>& inputs,
                 Oracle* oracle) {
  std::vector<Ending> parameters;
  for (const v1::Payload& input : inputs) parameters.push_back(Ending::Value(Datum::Of(input)));
  return Interpreter(definition, oracle).Scope(0, parameters, "");
}

std::string TextOf(const Ending& ending) {
  switch (ending.kind) {
    case Ending::Kind::kValue:
      return absl::StrCat("completed with ", TextOf(ending.value.ToPayload()));
    case Ending::Kind::kSkipped:
      return "skipped";
    case Ending::Kind::kNever:
      return "not to end by itself";
    case Ending::Kind::kFailed:
      break;
  }
  std::string text = "failed with";
  for (const Foreseen& failure : ending.failures) {
    absl::StrAppend(&text, &failure == &ending.failures[0] ? " " : " or ",
                    failure.own_words ? absl::StrCat(failure.failure.type(), " of the coordinator")
                                      : TextOf(failure.failure));
  }
  return text;
}

}  // namespace flux::sim
