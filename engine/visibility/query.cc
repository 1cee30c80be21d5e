#include "engine/visibility/query.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/visibility/query_parser.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

template <typename T>
void SortUnique(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

// Both hold.
template <typename T>
void Intersect(std::optional<std::vector<T>>& into, std::optional<std::vector<T>> other) {
  if (!other) return;
  if (!into) {
    into = std::move(other);
    return;
  }
  std::erase_if(*into, [&](const T& value) {
    return std::find(other->begin(), other->end(), value) == other->end();
  });
}

// One of them holds.
template <typename T>
void Unite(std::optional<std::vector<T>>& into, std::optional<std::vector<T>> other) {
  if (!into) return;
  if (!other) {
    into.reset();
    return;
  }
  into->insert(into->end(), other->begin(), other->end());
  SortUnique(*into);
}

void IntersectLabels(std::vector<QueryBounds::Label>& into, std::vector<QueryBounds::Label> other) {
  for (QueryBounds::Label& label : other) {
    const auto same = std::find_if(into.begin(), into.end(), [&](const QueryBounds::Label& known) {
      return known.name == label.name;
    });
    if (same == into.end()) {
      into.push_back(std::move(label));
      continue;
    }
    std::erase_if(same->values, [&](const std::string& value) {
      return std::find(label.values.begin(), label.values.end(), value) == label.values.end();
    });
  }
}

void UniteLabels(std::vector<QueryBounds::Label>& into,
                 const std::vector<QueryBounds::Label>& other) {
  std::erase_if(into, [&](QueryBounds::Label& label) {
    const auto same = std::find_if(other.begin(), other.end(),
                                   [&](const auto& known) { return known.name == label.name; });
    if (same == other.end()) return true;
    label.values.insert(label.values.end(), same->values.begin(), same->values.end());
    SortUnique(label.values);
    return false;
  });
}

void IntersectBounds(QueryBounds& into, QueryBounds other) {
  into.statuses &= other.statuses;
  into.start_min = std::max(into.start_min, other.start_min);
  into.start_max = std::min(into.start_max, other.start_max);
  Intersect(into.workflows, std::move(other.workflows));
  Intersect(into.workflow_ids, std::move(other.workflow_ids));
  Intersect(into.runs, std::move(other.runs));
  if (other.workflow_id_prefix.size() > into.workflow_id_prefix.size()) {
    into.workflow_id_prefix = std::move(other.workflow_id_prefix);
  }
  IntersectLabels(into.labels, std::move(other.labels));
}

void UniteBounds(QueryBounds& into, const QueryBounds& other) {
  into.statuses |= other.statuses;
  into.start_min = std::min(into.start_min, other.start_min);
  into.start_max = std::max(into.start_max, other.start_max);
  Unite(into.workflows, other.workflows);
  Unite(into.workflow_ids, other.workflow_ids);
  Unite(into.runs, other.runs);
  const auto [end, unused] =
      std::mismatch(into.workflow_id_prefix.begin(), into.workflow_id_prefix.end(),
                    other.workflow_id_prefix.begin(), other.workflow_id_prefix.end());
  into.workflow_id_prefix.erase(end, into.workflow_id_prefix.end());
  UniteLabels(into.labels, other.labels);
}

Match Not(Match match) {
  if (match == Match::kUnknown) return match;
  return match == Match::kYes ? Match::kNo : Match::kYes;
}

}  // namespace

std::string_view StatusWord(v1::ExecutionStatus status) {
  static constexpr std::array<std::string_view, kStatusMax + 1> kWords = {
      "",           "running", "completed",  "failed",  "cancelled",
      "terminated", "skipped", "cancelling", "failing", "paused"};
  const auto index = static_cast<size_t>(status);
  return index < kWords.size() ? kWords[index] : std::string_view();
}

ExecutionFields FieldsOf(const v1::ExecutionSummary& summary) {
  ExecutionFields fields;
  fields.run = RunId::FromBytes(summary.run_id()).value_or(RunId{});
  fields.status = summary.status();
  fields.start_ms = summary.start_time_ms();
  fields.close_ms = summary.close_time_ms();
  fields.workflow = summary.workflow();
  fields.workflow_id = summary.workflow_id();
  fields.version = summary.version();
  fields.failure_type = summary.failure_type();
  fields.parked = summary.parked_steps();
  fields.labels = &summary.labels();
  fields.steps = summary.steps_completed();
  return fields;
}

// ---- making
// -------------------------------------------------------------------------------------------------

absl::StatusOr<Query> Query::Parse(std::string_view text, int64_t now_ms) {
  Query query;
  FLUX_ASSIGN_OR_RETURN(query.root_, QueryParser(text, now_ms).Run());
  query.now_ms_ = now_ms;
  return query;
}

absl::StatusOr<Query> Query::FromFilter(const v1::ExecutionFilter& filter, int64_t now_ms) {
  FLUX_ASSIGN_OR_RETURN(Query query, Parse(filter.query(), now_ms));
  std::vector<Node> terms;
  const auto term = [&](Field field, Operator op) -> Node& {
    Node& node = terms.emplace_back();
    node.kind = Kind::kTerm;
    node.field = field;
    node.op = op;
    return node;
  };
  if (!filter.workflow().empty()) {
    term(Field::kWorkflow, Operator::kEqual).texts.push_back(filter.workflow());
  }
  if (!filter.workflow_id_prefix().empty()) {
    term(Field::kWorkflowId, Operator::kPrefix).texts.push_back(filter.workflow_id_prefix());
  }
  if (filter.started_after_ms() != 0) {
    term(Field::kStarted, Operator::kGreaterOrEqual).numbers.push_back(filter.started_after_ms());
  }
  if (filter.started_before_ms() != 0) {
    term(Field::kStarted, Operator::kLess).numbers.push_back(filter.started_before_ms());
  }
  if (filter.statuses_size() > 0) {
    Node& node = term(Field::kStatus, Operator::kEqual);
    for (int status : filter.statuses()) {
      if (status < kStatusMin || status > kStatusMax) {
        return absl::InvalidArgumentError(absl::StrCat("status ", status, " is not one"));
      }
      node.statuses |= StatusBit(static_cast<v1::ExecutionStatus>(status));
    }
  }
  if (terms.empty()) return query;
  Node all;
  all.children = std::move(terms);
  if (query.root_.kind != Kind::kAll || !query.root_.children.empty()) {
    all.children.push_back(std::move(query.root_));
  }
  query.root_ = std::move(all);
  return query;
}

// De Morgan's laws, so that only terms are negated.
Query::Node Query::Negate(Node node) {
  if (node.kind == Kind::kTerm) {
    node.negated = !node.negated;
    return node;
  }
  node.kind = node.kind == Kind::kAll ? Kind::kAny : Kind::kAll;
  for (Node& child : node.children) child = Negate(std::move(child));
  return node;
}

// ---- holding an execution against it
// ------------------------------------------------------------------------

Match Query::Check(const ExecutionFields& fields) const { return CheckNode(root_, fields); }

Match Query::CheckNode(const Node& node, const ExecutionFields& fields) const {
  if (node.kind == Kind::kTerm) {
    const bool known = node.field == Field::kLabel && node.label == fields.known_label;
    if (fields.labels == nullptr && !known &&
        (node.field == Field::kLabel || node.field == Field::kSteps)) {
      return Match::kUnknown;
    }
    const Match match = Holds(node, fields) ? Match::kYes : Match::kNo;
    return node.negated ? Not(match) : match;
  }
  const Match decides = node.kind == Kind::kAll ? Match::kNo : Match::kYes;
  bool unknown = false;
  for (const Node& child : node.children) {
    const Match match = CheckNode(child, fields);
    if (match == decides) return decides;
    unknown = unknown || match == Match::kUnknown;
  }
  return unknown ? Match::kUnknown : Not(decides);
}

bool Query::HoldsOf(const Node& term, int64_t value) {
  return std::any_of(term.numbers.begin(), term.numbers.end(), [&](int64_t wanted) {
    switch (term.op) {
      case Operator::kLess:
        return value < wanted;
      case Operator::kLessOrEqual:
        return value <= wanted;
      case Operator::kGreater:
        return value > wanted;
      case Operator::kGreaterOrEqual:
        return value >= wanted;
      default:
        return value == wanted;
    }
  });
}

bool Query::Holds(const Node& term, const ExecutionFields& fields) const {
  const auto text = [&](std::string_view value) {
    return std::any_of(term.texts.begin(), term.texts.end(), [&](const std::string& wanted) {
      return term.op == Operator::kPrefix ? value.substr(0, wanted.size()) == wanted
                                          : value == wanted;
    });
  };
  switch (term.field) {
    case Field::kWorkflow:
      return text(fields.workflow);
    case Field::kVersion:
      return text(fields.version);
    case Field::kStatus:
      return (term.statuses & StatusBit(fields.status)) != 0;
    case Field::kWorkflowId:
      return text(fields.workflow_id);
    case Field::kRunId:
      return text(fields.run.Text());
    case Field::kStarted:
      return HoldsOf(term, fields.start_ms);
    case Field::kClosed:
      return fields.close_ms != 0 && HoldsOf(term, fields.close_ms);
    case Field::kDuration:
      return HoldsOf(term, (fields.close_ms != 0 ? fields.close_ms : now_ms_) - fields.start_ms);
    case Field::kFailureType:
      return text(fields.failure_type);
    case Field::kParked:
      return HoldsOf(term, static_cast<int64_t>(fields.parked));
    case Field::kSteps:
      return HoldsOf(term, static_cast<int64_t>(fields.steps));
    case Field::kLabel: {
      if (fields.labels == nullptr) return text(fields.known_value);
      const auto label = fields.labels->find(term.label);
      return text(label == fields.labels->end() ? std::string_view()
                                                : std::string_view(label->second));
    }
  }
  return false;
}

// ---- what matches have in common
// ----------------------------------------------------------------------------

QueryBounds Query::Bounds() const { return BoundsOf(root_); }

QueryBounds Query::BoundsOf(const Node& node) {
  if (node.kind == Kind::kTerm) return BoundsOfTerm(node);
  QueryBounds bounds;
  if (node.kind == Kind::kAny && node.children.empty()) bounds.statuses = 0;
  for (size_t i = 0; i < node.children.size(); ++i) {
    if (node.kind == Kind::kAll) {
      IntersectBounds(bounds, BoundsOf(node.children[i]));
    } else if (i == 0) {
      bounds = BoundsOf(node.children[i]);
    } else {
      UniteBounds(bounds, BoundsOf(node.children[i]));
    }
  }
  return bounds;
}

QueryBounds Query::BoundsOfTerm(const Node& term) {
  QueryBounds bounds;
  if (term.field == Field::kStatus) {
    bounds.statuses = term.negated ? kAllStatuses & ~term.statuses : term.statuses;
    return bounds;
  }
  if (term.field == Field::kStarted) {
    // A start time is always there, so the negation of a comparison is its opposite.
    const auto [low, high] = std::minmax_element(term.numbers.begin(), term.numbers.end());
    const bool not_less = term.negated;
    switch (term.op) {
      case Operator::kLess:
        if (not_less) {
          bounds.start_min = *low;
        } else {
          bounds.start_max = *high == INT64_MIN ? *high : *high - 1;
        }
        break;
      case Operator::kLessOrEqual:
        (not_less ? bounds.start_min : bounds.start_max) = not_less ? *low : *high;
        break;
      case Operator::kGreater:
      case Operator::kGreaterOrEqual:
        (not_less ? bounds.start_max : bounds.start_min) = not_less ? *high : *low;
        break;
      default:
        if (not_less) break;
        bounds.start_min = *low;
        bounds.start_max = *high;
    }
    return bounds;
  }
  if (term.field == Field::kParked) {
    // An execution that has ended, or undoes what it did, has none.
    if (HoldsOf(term, 0) == term.negated) {
      bounds.statuses =
          StatusBit(v1::EXECUTION_STATUS_RUNNING) | StatusBit(v1::EXECUTION_STATUS_PAUSED);
    }
    return bounds;
  }
  if (term.negated) return bounds;
  switch (term.field) {
    case Field::kWorkflow:
      if (term.op == Operator::kEqual) bounds.workflows = term.texts;
      break;
    case Field::kWorkflowId:
      if (term.op == Operator::kEqual) {
        bounds.workflow_ids = term.texts;
      } else {
        bounds.workflow_id_prefix = term.texts[0];
        for (const std::string& text : term.texts) {
          const auto [end, unused] =
              std::mismatch(bounds.workflow_id_prefix.begin(), bounds.workflow_id_prefix.end(),
                            text.begin(), text.end());
          bounds.workflow_id_prefix.erase(end, bounds.workflow_id_prefix.end());
        }
      }
      break;
    case Field::kRunId:
      if (term.op == Operator::kEqual) {
        bounds.runs.emplace();
        for (const std::string& text : term.texts) {
          bounds.runs->push_back(RunId::FromText(text).value_or(RunId{}));
        }
      }
      break;
    case Field::kClosed:
      bounds.statuses = kClosedStatuses;
      // Nothing starts after it has closed.
      if (term.op == Operator::kLess || term.op == Operator::kLessOrEqual ||
          term.op == Operator::kEqual) {
        bounds.start_max = *std::max_element(term.numbers.begin(), term.numbers.end());
      }
      break;
    case Field::kLabel:
      if (term.op == Operator::kEqual &&
          std::find(term.texts.begin(), term.texts.end(), "") == term.texts.end()) {
        bounds.labels.push_back({term.label, term.texts});
      }
      break;
    default:
      break;
  }
  if (bounds.workflows) SortUnique(*bounds.workflows);
  if (bounds.workflow_ids) SortUnique(*bounds.workflow_ids);
  if (bounds.runs) SortUnique(*bounds.runs);
  for (QueryBounds::Label& label : bounds.labels) SortUnique(label.values);
  return bounds;
}

bool Query::OnlyStatusAndWorkflow() const { return NeedsOnlyStatusAndWorkflow(root_); }

bool Query::NeedsOnlyStatusAndWorkflow(const Node& node) {
  if (node.kind == Kind::kTerm) {
    return node.field == Field::kStatus || node.field == Field::kWorkflow;
  }
  return std::all_of(node.children.begin(), node.children.end(), NeedsOnlyStatusAndWorkflow);
}

}  // namespace flux::engine
