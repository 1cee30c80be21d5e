// Reads the text of a query; used by Query::Parse alone.
#ifndef FLUX_ENGINE_VISIBILITY_QUERY_PARSER_H_
#define FLUX_ENGINE_VISIBILITY_QUERY_PARSER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/visibility/query.h"

namespace flux::engine {

// One use each. Recursion is bounded by kQueryDepthMax. Not thread-safe.
class QueryParser {
 public:
  QueryParser(std::string_view text, int64_t now_ms) : text_(text), now_ms_(now_ms) {}

  absl::StatusOr<Query::Node> Run();

 private:
  enum class TokenKind {
    kEnd,
    kWord,      // fields, keywords: letters, digits and _, with dots
    kLiteral,   // -2h, 90s, 17, 2024-05-01T12:00:00Z
    kText,      // in quotes
    kOperator,  // = != < <= > >= ^=
    kOpen,
    kClose,
    kComma,
  };
  struct Token {
    TokenKind kind = TokenKind::kEnd;
    size_t at = 0;
    std::string text;  // of kText: what is between the quotes
  };

  absl::Status Next();
  absl::Status ReadQuoted();
  void ReadRun(TokenKind kind, std::string_view allowed);
  bool IsKeyword(std::string_view keyword) const;
  absl::Status Error(size_t at, const std::string& what) const;
  absl::Status Expected(const std::string& what) const;
  std::string Found() const;

  absl::StatusOr<Query::Node> Alternatives(int depth);
  absl::StatusOr<Query::Node> Conjunction(int depth);
  absl::StatusOr<Query::Node> Factor(int depth);
  absl::StatusOr<Query::Node> Comparison();
  absl::Status ReadField(Query::Node* term);
  absl::Status ReadOperator(Query::Node* term, bool* list);
  absl::Status ReadValue(Query::Node* term);
  absl::Status ReadText(Query::Node* term);
  absl::Status ReadStatus(Query::Node* term);
  absl::Status ReadTime(Query::Node* term);
  absl::Status ReadDuration(Query::Node* term);
  absl::Status ReadCount(Query::Node* term);

  const std::string_view text_;
  const int64_t now_ms_;
  size_t position_ = 0;  // behind token_
  Token token_;
  int values_ = 0;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_VISIBILITY_QUERY_PARSER_H_
