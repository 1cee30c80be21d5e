#include "engine/visibility/query_parser.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr std::string_view kFields =
    "workflow, version, status, workflow_id, run_id, started, closed, duration, failure_type, "
    "parked, steps, label.<name>";
constexpr std::string_view kWordBytes =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/";
constexpr std::string_view kLiteralBytes =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+:";
constexpr size_t kShownBytes = 40;  // of a token, in a message

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// A token as a message can hold it: short and printable.
std::string Shown(std::string_view text) {
  std::string out;
  size_t end = std::min(text.size(), kShownBytes);
  // The cut goes before the character that does not fit, never through it.
  while (end > 0 && end < text.size() && (text[end] & 0xc0) == 0x80) --end;
  for (char c : text.substr(0, end)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  if (end < text.size()) out += "…";
  return out;
}

struct Unit {
  std::string_view name;
  int64_t ms;
};
constexpr std::array<Unit, 6> kUnits = {{{"ms", 1},
                                         {"s", 1000},
                                         {"m", 60'000},
                                         {"h", 3'600'000},
                                         {"d", 86'400'000},
                                         {"w", 604'800'000}}};

// "90s", "1h30m", "7d". False: it is none.
bool ParseSpan(std::string_view text, int64_t* out) {
  int64_t total = 0;
  if (text == "0") {
    *out = 0;
    return true;
  }
  if (text.empty()) return false;
  while (!text.empty()) {
    size_t digits = 0;
    while (digits < text.size() && absl::ascii_isdigit(text[digits])) ++digits;
    size_t letters = digits;
    while (letters < text.size() && absl::ascii_isalpha(text[letters])) ++letters;
    int64_t count = 0;
    const std::string_view unit = text.substr(digits, letters - digits);
    const auto found = std::find_if(kUnits.begin(), kUnits.end(),
                                    [&](const Unit& known) { return known.name == unit; });
    int64_t ms = 0;
    if (digits == 0 || found == kUnits.end() ||
        !absl::SimpleAtoi(ToAbsl(text.substr(0, digits)), &count) ||
        __builtin_mul_overflow(count, found->ms, &ms) ||
        __builtin_add_overflow(total, ms, &total)) {
      return false;
    }
    text.remove_prefix(letters);
  }
  *out = total;
  return true;
}

}  // namespace

absl::Status QueryParser::Error(size_t at, const std::string& what) const {
  return absl::InvalidArgumentError(absl::StrCat("query, position ", at + 1, ": ", what));
}

std::string QueryParser::Found() const {
  switch (token_.kind) {
    case TokenKind::kEnd:
      return "the end";
    case TokenKind::kText:
      return absl::StrCat("the text \"", Shown(token_.text), "\"");
    default:
      return absl::StrCat("\"", Shown(token_.text), "\"");
  }
}

absl::Status QueryParser::Expected(const std::string& what) const {
  return Error(token_.at, absl::StrCat("expected ", what, ", found ", Found()));
}

// ---- tokens
// -------------------------------------------------------------------------------------------------

void QueryParser::ReadRun(TokenKind kind, std::string_view allowed) {
  const size_t end = std::min(text_.find_first_not_of(allowed, position_), text_.size());
  token_.kind = kind;
  token_.text = std::string(text_.substr(position_, end - position_));
  position_ = end;
}

absl::Status QueryParser::ReadQuoted() {
  const char quote = text_[position_++];
  token_.kind = TokenKind::kText;
  token_.text.clear();
  while (position_ < text_.size()) {
    char c = text_[position_++];
    if (c == quote) return absl::OkStatus();
    if (c == '\\') {
      if (position_ == text_.size()) break;
      c = text_[position_++];
      if (c != '\\' && c != '"' && c != '\'') {
        return Error(position_ - 2, "in quotes, a backslash stands before \\, \" or ' only");
      }
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return Error(position_ - 1, "a control character cannot be part of a text");
    }
    token_.text += c;
  }
  return Error(token_.at,
               absl::StrCat("the text that begins here has no closing ", std::string(1, quote)));
}

absl::Status QueryParser::Next() {
  while (position_ < text_.size() && IsBlank(text_[position_])) ++position_;
  token_.at = position_;
  token_.text.clear();
  if (position_ == text_.size()) {
    token_.kind = TokenKind::kEnd;
    return absl::OkStatus();
  }
  const char c = text_[position_];
  if (c == '"' || c == '\'') return ReadQuoted();
  if (absl::ascii_isdigit(c) || c == '-' || c == '+') {
    ReadRun(TokenKind::kLiteral, kLiteralBytes);
    return absl::OkStatus();
  }
  if (absl::ascii_isalpha(c) || c == '_') {
    ReadRun(TokenKind::kWord, kWordBytes);
    return absl::OkStatus();
  }
  const auto take = [&](TokenKind kind, size_t bytes) {
    token_.kind = kind;
    token_.text = std::string(text_.substr(position_, bytes));
    position_ += bytes;
    return absl::OkStatus();
  };
  switch (c) {
    case '(':
      return take(TokenKind::kOpen, 1);
    case ')':
      return take(TokenKind::kClose, 1);
    case ',':
      return take(TokenKind::kComma, 1);
    default:
      break;
  }
  for (std::string_view op : {"!=", "<=", ">=", "^=", "==", "=", "<", ">"}) {
    if (text_.substr(position_, op.size()) == op) return take(TokenKind::kOperator, op.size());
  }
  size_t bytes = 1;  // of the character
  while (position_ + bytes < text_.size() && (text_[position_ + bytes] & 0xc0) == 0x80) ++bytes;
  return Error(position_, absl::StrCat("\"", Shown(text_.substr(position_, bytes)),
                                       "\" means nothing here; texts are written in quotes"));
}

bool QueryParser::IsKeyword(std::string_view keyword) const {
  return token_.kind == TokenKind::kWord && absl::EqualsIgnoreCase(token_.text, ToAbsl(keyword));
}

// ---- structure
// ----------------------------------------------------------------------------------------------

absl::StatusOr<Query::Node> QueryParser::Run() {
  if (text_.size() > kQueryBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the query has ", text_.size(), " bytes; at most ", kQueryBytesMax, " are allowed"));
  }
  FLUX_RETURN_IF_ERROR(Next());
  if (token_.kind == TokenKind::kEnd) return Query::Node();
  FLUX_ASSIGN_OR_RETURN(Query::Node node, Alternatives(0));
  if (token_.kind != TokenKind::kEnd) return Expected("\"and\", \"or\" or the end");
  return node;
}

absl::StatusOr<Query::Node> QueryParser::Alternatives(int depth) {
  if (depth > kQueryDepthMax) {
    return Error(token_.at, absl::StrCat("more than ", kQueryDepthMax,
                                         " parentheses and nots lie within one another"));
  }
  FLUX_ASSIGN_OR_RETURN(Query::Node first, Conjunction(depth));
  if (!IsKeyword("or")) return first;
  Query::Node any;
  any.kind = Query::Kind::kAny;
  any.children.push_back(std::move(first));
  while (IsKeyword("or")) {
    FLUX_RETURN_IF_ERROR(Next());
    FLUX_ASSIGN_OR_RETURN(Query::Node next, Conjunction(depth));
    any.children.push_back(std::move(next));
  }
  return any;
}

absl::StatusOr<Query::Node> QueryParser::Conjunction(int depth) {
  FLUX_ASSIGN_OR_RETURN(Query::Node first, Factor(depth));
  if (!IsKeyword("and")) return first;
  Query::Node all;
  all.children.push_back(std::move(first));
  while (IsKeyword("and")) {
    FLUX_RETURN_IF_ERROR(Next());
    FLUX_ASSIGN_OR_RETURN(Query::Node next, Factor(depth));
    all.children.push_back(std::move(next));
  }
  return all;
}

absl::StatusOr<Query::Node> QueryParser::Factor(int depth) {
  if (depth > kQueryDepthMax) {
    return Error(token_.at, absl::StrCat("more than ", kQueryDepthMax,
                                         " parentheses and nots lie within one another"));
  }
  if (IsKeyword("not")) {
    FLUX_RETURN_IF_ERROR(Next());
    FLUX_ASSIGN_OR_RETURN(Query::Node node, Factor(depth + 1));
    return Query::Negate(std::move(node));
  }
  if (token_.kind == TokenKind::kOpen) {
    FLUX_RETURN_IF_ERROR(Next());
    FLUX_ASSIGN_OR_RETURN(Query::Node node, Alternatives(depth + 1));
    if (token_.kind != TokenKind::kClose) return Expected("\"and\", \"or\" or \")\"");
    FLUX_RETURN_IF_ERROR(Next());
    return node;
  }
  return Comparison();
}

absl::StatusOr<Query::Node> QueryParser::Comparison() {
  Query::Node term;
  term.kind = Query::Kind::kTerm;
  FLUX_RETURN_IF_ERROR(ReadField(&term));
  bool list = false;
  FLUX_RETURN_IF_ERROR(ReadOperator(&term, &list));
  if (!list) {
    FLUX_RETURN_IF_ERROR(ReadValue(&term));
    return term;
  }
  if (token_.kind != TokenKind::kOpen) return Expected("\"(\" and a list of values after \"in\"");
  do {
    FLUX_RETURN_IF_ERROR(Next());
    FLUX_RETURN_IF_ERROR(ReadValue(&term));
  } while (token_.kind == TokenKind::kComma);
  if (token_.kind != TokenKind::kClose) return Expected("\",\" or \")\" in the list of values");
  FLUX_RETURN_IF_ERROR(Next());
  return term;
}

// ---- the parts of a comparison
// ------------------------------------------------------------------------------

absl::Status QueryParser::ReadField(Query::Node* term) {
  using Field = Query::Field;
  struct Known {
    std::string_view name;
    Field field;
  };
  static constexpr std::array<Known, 11> kKnown = {{{"workflow", Field::kWorkflow},
                                                    {"version", Field::kVersion},
                                                    {"status", Field::kStatus},
                                                    {"workflow_id", Field::kWorkflowId},
                                                    {"run_id", Field::kRunId},
                                                    {"started", Field::kStarted},
                                                    {"closed", Field::kClosed},
                                                    {"duration", Field::kDuration},
                                                    {"failure_type", Field::kFailureType},
                                                    {"parked", Field::kParked},
                                                    {"steps", Field::kSteps}}};
  const std::string fields = absl::StrCat("; fields are ", ToAbsl(kFields));
  if (token_.kind != TokenKind::kWord) {
    return Error(token_.at, absl::StrCat("expected a field, found ", Found(), fields));
  }
  const std::string name = token_.text;
  const size_t at = token_.at;
  for (const Known& known : kKnown) {
    if (known.name == name) {
      term->field = known.field;
      return Next();
    }
  }
  if (!absl::StartsWith(name, "label.")) {
    const bool keyword = IsKeyword("and") || IsKeyword("or") || IsKeyword("in");
    return Error(at, keyword ? absl::StrCat("expected a field, found ", Found(), fields)
                             : absl::StrCat("no field is called \"", Shown(name), "\"", fields));
  }
  term->field = Field::kLabel;
  term->label = name.substr(6);
  FLUX_RETURN_IF_ERROR(Next());
  // label."any text" names what is not a word.
  if (term->label.empty() && token_.kind == TokenKind::kText && token_.at == at + name.size()) {
    term->label = token_.text;
    FLUX_RETURN_IF_ERROR(Next());
  }
  if (term->label.empty()) {
    return Error(at, "\"label.\" lacks the label's name: label.tenant, or label.\"my tenant\"");
  }
  return absl::OkStatus();
}

absl::Status QueryParser::ReadOperator(Query::Node* term, bool* list) {
  using Field = Query::Field;
  using Operator = Query::Operator;
  const bool number = term->field == Field::kStarted || term->field == Field::kClosed ||
                      term->field == Field::kDuration || term->field == Field::kParked ||
                      term->field == Field::kSteps;
  const std::string choices = number ? "=, !=, <, <=, > or >=" : "=, !=, ^= or in (…)";
  if (IsKeyword("not")) {
    term->negated = true;
    FLUX_RETURN_IF_ERROR(Next());
    if (!IsKeyword("in")) return Expected("\"in\" after \"not\"");
  }
  if (IsKeyword("in")) {
    *list = true;
    return Next();
  }
  const size_t at = token_.at;
  if (token_.kind != TokenKind::kOperator) return Expected("an operator: " + choices);
  const std::string op = token_.text;
  if (op == "=" || op == "==" || op == "!=") {
    term->negated = op == "!=";
  } else if (op == "^=") {
    if (number || term->field == Field::kStatus) {
      return Error(at, absl::StrCat("^= compares texts; here use ",
                                    number ? choices : std::string("=, != or in (…)")));
    }
    term->op = Operator::kPrefix;
  } else if (!number) {
    return Error(at, absl::StrCat(op, " compares times and numbers; here use ",
                                  term->field == Field::kStatus ? "=, != or in (…)" : choices));
  } else if (op == "<") {
    term->op = Operator::kLess;
  } else if (op == "<=") {
    term->op = Operator::kLessOrEqual;
  } else if (op == ">") {
    term->op = Operator::kGreater;
  } else {
    term->op = Operator::kGreaterOrEqual;
  }
  return Next();
}

absl::Status QueryParser::ReadValue(Query::Node* term) {
  using Field = Query::Field;
  if (++values_ > kQueryValuesMax) {
    return Error(token_.at, absl::StrCat("the query compares with more than ", kQueryValuesMax,
                                         " values; split it"));
  }
  switch (term->field) {
    case Field::kStatus:
      FLUX_RETURN_IF_ERROR(ReadStatus(term));
      break;
    case Field::kStarted:
    case Field::kClosed:
      FLUX_RETURN_IF_ERROR(ReadTime(term));
      break;
    case Field::kDuration:
      FLUX_RETURN_IF_ERROR(ReadDuration(term));
      break;
    case Field::kParked:
    case Field::kSteps:
      FLUX_RETURN_IF_ERROR(ReadCount(term));
      break;
    default:
      FLUX_RETURN_IF_ERROR(ReadText(term));
      break;
  }
  return Next();
}

absl::Status QueryParser::ReadText(Query::Node* term) {
  if (token_.kind != TokenKind::kText) return Expected("a text in quotes");
  if (term->field == Query::Field::kRunId && term->op == Query::Operator::kEqual &&
      !RunId::FromText(token_.text)) {
    return Error(token_.at, absl::StrCat("run id \"", Shown(token_.text),
                                         "\" is not one: 32 lower-case hexadecimal digits, or the "
                                         "first few of them after ^="));
  }
  term->texts.push_back(token_.text);
  return absl::OkStatus();
}

absl::Status QueryParser::ReadStatus(Query::Node* term) {
  if (token_.kind != TokenKind::kText) return Expected("a status in quotes, such as \"failed\"");
  std::vector<std::string_view> known;
  for (int value = kStatusMin; value <= kStatusMax; ++value) {
    const auto status = static_cast<v1::ExecutionStatus>(value);
    known.push_back(StatusWord(status));
    if (known.back() == token_.text) {
      term->statuses |= StatusBit(status);
      return absl::OkStatus();
    }
  }
  if (token_.text == "open") {
    term->statuses |= kOpenStatuses;
    return absl::OkStatus();
  }
  if (token_.text == "closed") {
    term->statuses |= kClosedStatuses;
    return absl::OkStatus();
  }
  std::string words;
  for (std::string_view word : known) absl::StrAppend(&words, ToAbsl(word), ", ");
  return Error(token_.at,
               absl::StrCat("no status is called \"", Shown(token_.text), "\"; there are ", words,
                            "and open and closed for all such"));
}

absl::Status QueryParser::ReadTime(Query::Node* term) {
  constexpr std::string_view kWanted =
      "a time: -2h (relative to now), 2024-05-01, or 2024-05-01T12:00:00Z";
  if (IsKeyword("now")) {
    term->numbers.push_back(now_ms_);
    return absl::OkStatus();
  }
  if (token_.kind != TokenKind::kLiteral && token_.kind != TokenKind::kText) {
    return Expected(std::string(kWanted));
  }
  const std::string& text = token_.text;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    int64_t span = 0;
    int64_t time = 0;
    if (!ParseSpan(std::string_view(text).substr(1), &span) ||
        (text[0] == '-' ? __builtin_sub_overflow(now_ms_, span, &time)
                        : __builtin_add_overflow(now_ms_, span, &time))) {
      return Expected("a time span after the sign: 30s, 15m, 2h, 7d, 1h30m");
    }
    term->numbers.push_back(time);
    return absl::OkStatus();
  }
  absl::Time time;
  std::string error;
  // The year 1 to 9999: nothing outside can be meant.
  const bool parsed = absl::ParseTime(absl::RFC3339_full, text, &time, &error) ||
                      absl::ParseTime("%Y-%m-%d", text, &time, &error);
  if (!parsed || time < absl::FromUnixSeconds(-62'135'596'800) ||
      time > absl::FromUnixSeconds(253'402'300'799)) {
    return Expected(std::string(kWanted));
  }
  term->numbers.push_back(absl::ToUnixMillis(time));
  return absl::OkStatus();
}

absl::Status QueryParser::ReadDuration(Query::Node* term) {
  int64_t span = 0;
  if ((token_.kind != TokenKind::kLiteral && token_.kind != TokenKind::kText) ||
      !ParseSpan(token_.text, &span)) {
    return Expected("a duration: 500ms, 30s, 15m, 2h, 7d, 1h30m");
  }
  term->numbers.push_back(span);
  return absl::OkStatus();
}

absl::Status QueryParser::ReadCount(Query::Node* term) {
  int64_t count = 0;
  if (token_.kind != TokenKind::kLiteral || !absl::SimpleAtoi(token_.text, &count) || count < 0) {
    return Expected("a whole number");
  }
  term->numbers.push_back(count);
  return absl::OkStatus();
}

}  // namespace flux::engine
