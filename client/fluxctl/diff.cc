// `definition diff`: two definitions, step by step.
#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/fluxctl/commands.h"
#include "client/fluxctl/view.h"
#include "google/protobuf/text_format.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::WorkflowService;
using Fields = std::map<std::string, std::string>;
using google::protobuf::FieldDescriptor;

constexpr int kScopeDepthMax = 64;  // of references through bodies; a damaged definition has no end
constexpr std::size_t kHashPrefixMin = 6;
constexpr std::size_t kHashHexSize = 64;
constexpr std::size_t kHashShown = 12;
constexpr std::size_t kCandidatesMax = 5;  // in a message

// What each step of a definition says, as text without ordinals: equal texts mean that the step
// does the same, wherever it stands.
class StepReader {
 public:
  explicit StepReader(const v1::Definition& definition) : definition_(definition) {
    owners_.resize(static_cast<std::size_t>(definition.scopes_size()));
    for (int s = 0; s < definition.scopes_size(); ++s) {
      for (const v1::Step& step : definition.scopes(s).steps()) Own(s, step);
    }
  }

  std::map<std::string, Fields> Read() const {
    std::map<std::string, Fields> steps;
    for (int s = 0; s < definition_.scopes_size(); ++s) {
      for (const v1::Step& step : definition_.scopes(s).steps()) steps[step.name()] = Read(s, step);
    }
    return steps;
  }

  std::string Result(int scope) const {
    if (scope < 0 || scope >= definition_.scopes_size()) return "";
    const v1::Scope& of = definition_.scopes(scope);
    return of.has_result() ? Source(scope, of.result(), 0) : "";
  }

 private:
  struct Owner {
    int scope = 0;
    const v1::Step* step = nullptr;
    std::string label;      // "case true"; empty for a lone body
    std::string own;        // what its first parameter is: "item", "state", …; empty: a capture
    int first_capture = 0;  // input of the owner that is the first captured parameter
    const v1::CatchClause* clause = nullptr;  // then the captures are the clause's
  };

  void Set(uint32_t body, Owner owner) {
    if (body < owners_.size()) owners_[body] = std::move(owner);
  }

  void Own(int scope, const v1::Step& step) {
    if (step.has_map()) {
      Set(step.map().body(), {scope, &step, "", "item", 1, nullptr});
      if (step.map().has_page_body()) {
        Set(step.map().page_body(), {scope, &step, "page", "cursor", 1, nullptr});
      }
    }
    if (step.has_loop()) Set(step.loop().body(), {scope, &step, "", "state", 1, nullptr});
    if (step.has_block()) Set(step.block().body(), {scope, &step, "", "", 0, nullptr});
    for (const auto& one : step.switch_().cases()) {
      Set(one.body(),
          {scope, &step, absl::StrCat("case ", PayloadText(one.match(), -1)), "", 1, nullptr});
    }
    if (step.switch_().has_default_body()) {
      Set(step.switch_().default_body(), {scope, &step, "default", "", 1, nullptr});
    }
    for (const v1::CatchClause& clause : step.catches()) {
      Set(clause.body(), {scope, &step, CatchLabel(clause), "failure", 0, &clause});
    }
  }

  static std::string CatchLabel(const v1::CatchClause& clause) {
    return clause.types().empty() ? "catch any failure"
                                  : absl::StrCat("catch ", absl::StrJoin(clause.types(), ", "));
  }

  // A captured parameter is named by what it captures.
  std::string Source(int scope, const v1::Input& input, int depth) const {
    std::string text = "?";
    switch (input.source_case()) {
      case v1::Input::kStep: {
        const v1::Scope& of = definition_.scopes(scope);
        if (input.step() < static_cast<uint32_t>(of.steps_size())) {
          text = of.steps(static_cast<int>(input.step())).name();
        }
        break;
      }
      case v1::Input::kParameter:
        text = Parameter(scope, input.parameter(), depth);
        break;
      case v1::Input::kLiteral:
        text = PayloadText(input.literal(), -1);
        break;
      case v1::Input::SOURCE_NOT_SET:
        break;
    }
    return absl::StrCat(text, input.pointer(), input.optional() ? "?" : "");
  }

  std::string Parameter(int scope, uint32_t parameter, int depth) const {
    const Owner& owner = owners_[static_cast<std::size_t>(scope)];
    if (owner.step == nullptr || depth > kScopeDepthMax) {
      return absl::StrCat("parameter ", parameter + 1);
    }
    const uint32_t own = owner.own.empty() ? 0 : 1;
    if (parameter < own) return absl::StrCat("the ", owner.own, " of ", owner.step->name());
    const auto& captures =
        owner.clause == nullptr ? owner.step->inputs() : owner.clause->captures();
    const uint32_t index = parameter - own + static_cast<uint32_t>(owner.first_capture);
    if (index >= static_cast<uint32_t>(captures.size())) return "?";
    v1::Input captured = captures.Get(static_cast<int>(index));
    captured.set_optional(false);  // the reader's own mark counts
    return Source(owner.scope, captured, depth + 1);
  }

  // How many of a step's inputs are its own; captures follow.
  static int OwnInputs(const v1::Step& step) {
    if (step.has_block()) return 0;
    return step.has_map() || step.has_loop() || step.has_switch_() ? std::min(step.inputs_size(), 1)
                                                                   : step.inputs_size();
  }

  Fields Read(int scope, const v1::Step& step) const {
    Fields fields;
    const Owner& owner = owners_[static_cast<std::size_t>(scope)];
    if (owner.step != nullptr) {
      fields["in"] = owner.label.empty() ? owner.step->name()
                                         : absl::StrCat(owner.step->name(), " (", owner.label, ")");
    }
    std::vector<std::string> inputs;
    for (int i = 0; i < OwnInputs(step); ++i) inputs.push_back(Source(scope, step.inputs(i), 0));
    if (!inputs.empty()) fields["inputs"] = absl::StrJoin(inputs, ", ");
    std::set<std::string> after;
    for (const uint32_t index : step.after()) {
      v1::Input input;
      input.set_step(index);
      after.insert(Source(scope, input, 0));
    }
    if (!after.empty()) fields["after"] = absl::StrJoin(after, ", ");
    fields["kind"] = KindOf(step);
    v1::Step rest = step;
    rest.clear_name();
    rest.clear_inputs();
    rest.clear_after();
    rest.clear_location();
    if (step.has_loop() && step.loop().has_done()) {
      fields["loop.done"] = Source(static_cast<int>(step.loop().body()), step.loop().done(), 0);
      rest.mutable_loop()->clear_done();
    }
    if (step.has_loop()) Body("", step.loop().body(), &fields);
    if (step.has_map()) Body("", step.map().body(), &fields);
    if (step.map().has_page_body()) Body("page ", step.map().page_body(), &fields);
    if (step.has_block()) Body("", step.block().body(), &fields);
    for (const auto& one : step.switch_().cases()) {
      Body(absl::StrCat("case ", PayloadText(one.match(), -1), " "), one.body(), &fields);
    }
    if (step.switch_().has_default_body()) {
      Body("default ", step.switch_().default_body(), &fields);
    }
    for (const v1::CatchClause& clause : step.catches()) {
      Body(absl::StrCat(CatchLabel(clause), " "), clause.body(), &fields);
    }
    rest.clear_catches();
    if (rest.has_switch_()) rest.clear_switch_();
    if (rest.has_map()) {
      rest.mutable_map()->clear_body();
      rest.mutable_map()->clear_page_body();
    }
    if (rest.has_loop()) rest.mutable_loop()->clear_body();
    if (rest.has_block()) rest.clear_block();
    Flatten(rest, "", &fields);
    return fields;
  }

  void Body(const std::string& label, uint32_t body, Fields* fields) const {
    const std::string result = Result(static_cast<int>(body));
    (*fields)[absl::StrCat(label, "result")] = result.empty() ? "none" : result;
  }

  static std::string KindOf(const v1::Step& step) {
    const auto* field = step.GetDescriptor()->FindFieldByNumber(static_cast<int>(step.kind_case()));
    return field == nullptr ? "" : field->name();
  }

  static void Flatten(const google::protobuf::Message& message, const std::string& prefix,
                      Fields* fields) {
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    std::vector<const FieldDescriptor*> set;
    reflection.ListFields(message, &set);
    for (const FieldDescriptor* field : set) {
      const std::string name = absl::StrCat(prefix, field->name());
      if (!field->is_repeated() && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        const google::protobuf::Message& inner = reflection.GetMessage(message, field);
        if (field->message_type()->full_name() == "flux.v1.Payload") {
          (*fields)[name] = PayloadText(static_cast<const v1::Payload&>(inner), -1);
        } else {
          Flatten(inner, absl::StrCat(name, "."), fields);
        }
        continue;
      }
      std::vector<std::string> values;
      const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
      for (int i = 0; i < count; ++i) {
        values.push_back(ValueText(message, *field, field->is_repeated() ? i : -1));
      }
      (*fields)[name] = absl::StrJoin(values, ", ");
    }
  }

  static std::string ValueText(const google::protobuf::Message& message,
                               const FieldDescriptor& field, int index) {
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      const std::string text =
          index < 0 ? message.GetReflection()->GetString(message, &field)
                    : message.GetReflection()->GetRepeatedString(message, &field, index);
      return field.type() == FieldDescriptor::TYPE_BYTES ? absl::BytesToHexString(text) : text;
    }
    if (index < 0 && field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 &&
        absl::EndsWith(field.name(), "_ms")) {
      return DurationText(absl::Milliseconds(message.GetReflection()->GetInt64(message, &field)));
    }
    if (index < 0 && field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      return EnumName(*field.enum_type(), message.GetReflection()->GetEnumValue(message, &field));
    }
    std::string text;
    google::protobuf::TextFormat::PrintFieldValueToString(message, &field, index, &text);
    return text;
  }

  const v1::Definition& definition_;
  std::vector<Owner> owners_;
};

std::vector<StepChange::Field> DiffFields(const Fields& from, const Fields& to) {
  std::vector<StepChange::Field> changes;
  std::set<std::string> names;
  for (const auto& [name, value] : from) names.insert(name);
  for (const auto& [name, value] : to) names.insert(name);
  for (const std::string& name : names) {
    const auto before = from.find(name);
    const auto after = to.find(name);
    const std::string old_value = before == from.end() ? "" : before->second;
    const std::string new_value = after == to.end() ? "" : after->second;
    if (old_value != new_value) changes.push_back({name, old_value, new_value});
  }
  return changes;
}

Fields HeadOf(const v1::Definition& definition) {
  Fields fields;
  const auto set = [&](const char* name, const std::string& value) {
    if (!value.empty()) fields[name] = value;
  };
  set("name", definition.name());
  set("version", definition.version());
  set("description", definition.description());
  if (definition.execution_timeout_ms() != 0) {
    set("execution_timeout", DurationText(absl::Milliseconds(definition.execution_timeout_ms())));
  }
  set("parameters", absl::StrJoin(definition.parameter_types(), ", "));
  set("result_type", definition.result_type());
  set("result", StepReader(definition).Result(0));
  return fields;
}

std::string LabelOf(const v1::DefinitionSummary& summary, std::size_t digits) {
  return absl::StrCat(summary.name(), summary.version().empty() ? "" : "@", summary.version(), " (",
                      absl::BytesToHexString(summary.definition_hash()).substr(0, digits), ")");
}

std::string LabelOf(const v1::GetDefinitionResponse& response) {
  return LabelOf(response.summary(), kHashShown);
}

Json FieldsJson(const std::vector<StepChange::Field>& fields) {
  Json json = Json::array();
  for (const StepChange::Field& field : fields) {
    json.push_back(Json{{"field", field.name},
                        {"from", field.from.empty() ? Json(nullptr) : Json(field.from)},
                        {"to", field.to.empty() ? Json(nullptr) : Json(field.to)}});
  }
  return json;
}

}  // namespace

bool IsHashPrefix(const std::string& text) {
  return text.size() >= kHashPrefixMin && text.size() <= kHashHexSize &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return std::isxdigit(c) != 0; });
}

absl::StatusOr<std::optional<std::string>> FindHash(Context& context, const std::string& prefix,
                                                    const std::string& name) {
  std::map<std::string, std::string> found;  // hash to label
  v1::ListDefinitionsRequest request;
  request.set_name(name);
  do {
    FLUX_ASSIGN_OR_RETURN(
        const v1::ListDefinitionsResponse page,
        context.connection.Call(context.connection.workflows(),
                                &WorkflowService::Stub::ListDefinitions, request));
    for (const v1::DefinitionSummary& summary : page.definitions()) {
      const std::string& hash = summary.definition_hash();
      if (absl::StartsWithIgnoreCase(absl::BytesToHexString(hash), prefix)) {
        found[hash] = LabelOf(summary, kHashHexSize);
      }
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (found.empty()) return std::nullopt;
  if (found.size() == 1) return found.begin()->first;
  std::vector<std::string> labels;
  for (const auto& [hash, label] : found) {
    if (labels.size() == kCandidatesMax) {
      labels.push_back(absl::StrCat("and ", found.size() - kCandidatesMax, " more"));
      break;
    }
    labels.push_back(label);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("more than one definition's hash begins with ", prefix,
                   ", give more of it: ", absl::StrJoin(labels, ", ")));
}

absl::StatusOr<v1::GetDefinitionResponse> FindDefinition(Context& context, const std::string& spec,
                                                         const std::string& name) {
  v1::GetDefinitionRequest request;
  const std::size_t at = spec.rfind('@');
  if (at != std::string::npos) {
    request.set_name(at == 0 ? name : spec.substr(0, at));
    request.set_version(spec.substr(at + 1));
    if (request.name().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", spec, "\" names a version but no workflow: NAME@VERSION"));
    }
  } else {
    request.set_name(spec);
    if (IsHashPrefix(spec)) {
      FLUX_ASSIGN_OR_RETURN(const std::optional<std::string> hash, FindHash(context, spec, ""));
      if (hash.has_value()) {
        request.clear_name();
        request.set_definition_hash(*hash);
      }
    }
  }
  absl::StatusOr<v1::GetDefinitionResponse> response = context.connection.Call(
      context.connection.workflows(), &WorkflowService::Stub::GetDefinition, request);
  if (absl::IsNotFound(response.status())) {
    return WithHint(response.status(), "'fluxctl definition list' shows what the server knows");
  }
  return response;
}

std::vector<StepChange> DiffSteps(const v1::Definition& from, const v1::Definition& to) {
  const std::map<std::string, Fields> before = StepReader(from).Read();
  const std::map<std::string, Fields> after = StepReader(to).Read();
  std::vector<StepChange> changes;
  // In the order of the text: the old one's steps, then what is new.
  for (const v1::Scope& scope : from.scopes()) {
    for (const v1::Step& step : scope.steps()) {
      const Fields& old_fields = before.at(step.name());
      const auto found = after.find(step.name());
      if (found == after.end()) {
        changes.push_back({step.name(), old_fields.at("kind"), "removed", {}});
        continue;
      }
      std::vector<StepChange::Field> fields = DiffFields(old_fields, found->second);
      if (fields.empty()) continue;
      changes.push_back({step.name(), found->second.at("kind"), "changed", std::move(fields)});
    }
  }
  for (const v1::Scope& scope : to.scopes()) {
    for (const v1::Step& step : scope.steps()) {
      if (before.contains(step.name())) continue;
      changes.push_back({step.name(), after.at(step.name()).at("kind"), "added", {}});
    }
  }
  return changes;
}

std::vector<StepChange::Field> DiffHeads(const v1::Definition& from, const v1::Definition& to) {
  return DiffFields(HeadOf(from), HeadOf(to));
}

Table DiffTable(const std::vector<StepChange::Field>& heads, const std::vector<StepChange>& steps) {
  Table table;
  table.columns = {
      {.header = "CHANGE"}, {.header = "STEP", .shrink = true}, {.header = "KIND"},
      {.header = "FIELD"},  {.header = "FROM", .shrink = true}, {.header = "TO", .shrink = true}};
  const auto shown = [](const std::string& text) { return text.empty() ? std::string("-") : text; };
  for (const StepChange::Field& field : heads) {
    table.rows.push_back({Cell("changed", Style::kWait), Cell("the workflow"), Cell(" "),
                          Cell(field.name), Cell(shown(field.from)), Cell(shown(field.to))});
  }
  for (const StepChange& change : steps) {
    const Style style = change.what == "added"     ? Style::kGood
                        : change.what == "removed" ? Style::kBad
                                                   : Style::kWait;
    if (change.fields.empty()) {
      table.rows.push_back({Cell(change.what, style), Cell(change.step, Style::kBold),
                            Cell(change.kind, Style::kDim), Cell(" "), Cell(" ")});
    }
    for (const StepChange::Field& field : change.fields) {
      table.rows.push_back({Cell(change.what, style), Cell(change.step, Style::kBold),
                            Cell(change.kind, Style::kDim), Cell(field.name),
                            Cell(shown(field.from)), Cell(shown(field.to))});
    }
  }
  return table;
}

CommandResult DiffDefinitions(Context& context, const DiffOptions& options) {
  FLUX_ASSIGN_OR_RETURN(const v1::GetDefinitionResponse from,
                        FindDefinition(context, options.from, ""));
  FLUX_ASSIGN_OR_RETURN(const v1::GetDefinitionResponse to,
                        FindDefinition(context, options.to, from.definition().name()));
  const std::vector<StepChange::Field> heads = DiffHeads(from.definition(), to.definition());
  const std::vector<StepChange> steps = DiffSteps(from.definition(), to.definition());
  if (context.output != Output::kTable) {
    Json json;
    json["from"] = ToJson(from.summary());
    json["to"] = ToJson(to.summary());
    json["workflow"] = FieldsJson(heads);
    json["steps"] = Json::array();
    for (const StepChange& change : steps) {
      json["steps"].push_back(Json{{"step", change.step},
                                   {"kind", change.kind},
                                   {"change", change.what},
                                   {"fields", FieldsJson(change.fields)}});
    }
    context.Print(json);
    return kExitOk;
  }
  if (heads.empty() && steps.empty()) {
    context.console.Note(absl::StrCat(LabelOf(from), " and ", LabelOf(to), " do the same"));
    return kExitOk;
  }
  context.console.Note(absl::StrCat("from ", LabelOf(from), " to ", LabelOf(to)));
  Table table = DiffTable(heads, steps);
  context.Print(table);
  return kExitOk;
}

}  // namespace flux::ctl
