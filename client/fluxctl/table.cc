#include "client/fluxctl/table.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kShrunkColumnMin = 8;

constexpr std::string_view kBlank = " ";

// A row's text at a column, as it is measured and drawn.
const Cell& At(const std::vector<Cell>& row, std::size_t column) {
  static const Cell empty("");
  return column < row.size() ? row[column] : empty;
}

void Shrink(const Theme& theme, const Table& table, std::vector<std::size_t>* widths) {
  if (theme.columns == 0) return;
  std::size_t total =
      std::accumulate(widths->begin(), widths->end(), std::size_t{0}) + kGap * (widths->size() - 1);
  while (total > theme.columns) {
    std::size_t widest = widths->size();
    for (std::size_t i = 0; i < widths->size(); ++i) {
      if (!table.columns[i].shrink || (*widths)[i] <= kShrunkColumnMin) continue;
      if (widest == widths->size() || (*widths)[i] > (*widths)[widest]) widest = i;
    }
    if (widest == widths->size()) return;
    --(*widths)[widest];
    --total;
  }
}

void AppendRow(const Theme& theme, const Table& table, const std::vector<Cell>& row,
               const std::vector<std::size_t>& widths, std::string* out) {
  std::string line;
  std::size_t pending = 0;  // blanks owed before the next visible text
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const Cell& cell = At(row, i);
    const bool last = i + 1 == widths.size();
    std::string_view raw = cell.text;
    if (raw.empty() && cell.indent.empty() && !last) raw = "-";
    if (raw == kBlank) raw = "";
    const std::size_t indent = Width(cell.indent);
    const std::size_t room = std::max(widths[i], indent) - indent;
    const std::string text =
        table.columns[i].shrink ? Fit(raw, room, theme.unicode) : std::string(raw);
    const std::size_t width = indent + Width(text);
    const std::size_t blanks = widths[i] > width ? widths[i] - width : 0;
    if (table.columns[i].right) pending += blanks;
    if (width > 0) {
      line.append(pending, ' ');
      pending = 0;
      line.append(Paint(theme, Style::kDim, cell.indent));
      line.append(Paint(theme, text == "-" ? Style::kDim : cell.style, text));
    }
    pending += (table.columns[i].right ? 0 : blanks) + kGap;
  }
  absl::StrAppend(out, line, "\n");
}

}  // namespace

std::string Render(const Theme& theme, Table& table) {
  std::vector<std::size_t> widths(table.columns.size(), 0);
  for (std::size_t i = 0; i < widths.size(); ++i) {
    widths[i] = table.headers ? Width(table.columns[i].header) : 0;
    if (i < table.widths.size()) widths[i] = std::max(widths[i], table.widths[i]);
    for (const std::vector<Cell>& row : table.rows) {
      const Cell& cell = At(row, i);
      widths[i] = std::max({widths[i], Width(cell.indent) + Width(cell.text), std::size_t{1}});
    }
  }
  table.widths = widths;
  Shrink(theme, table, &widths);
  std::string out;
  if (table.headers) {
    std::vector<Cell> header;
    for (const Column& column : table.columns) header.emplace_back(column.header, Style::kBold);
    AppendRow(theme, table, header, widths, &out);
  }
  for (const std::vector<Cell>& row : table.rows) AppendRow(theme, table, row, widths, &out);
  return out;
}

std::string Render(const Theme& theme, const Block& block) {
  std::size_t width = 0;
  for (const auto& [key, value] : block) {
    if (!value.text.empty()) width = std::max(width, Width(key));
  }
  std::string out;
  for (const auto& [key, value] : block) {
    if (value.text.empty()) continue;
    absl::StrAppend(&out, Paint(theme, Style::kBold, absl::StrCat(key, ":")),
                    std::string(width - Width(key) + kGap, ' '),
                    Paint(theme, value.style, value.text), "\n");
  }
  return out;
}

std::string TreeIndent(const std::vector<bool>& last, bool unicode) {
  std::string out;
  for (std::size_t i = 0; i < last.size(); ++i) {
    const bool own = i + 1 == last.size();
    if (unicode) {
      out.append(own ? (last[i] ? "└─ " : "├─ ") : (last[i] ? "   " : "│  "));
    } else {
      out.append(own ? (last[i] ? "`- " : "|- ") : (last[i] ? "   " : "|  "));
    }
  }
  return out;
}

std::string Bar(double fraction, std::size_t columns, bool unicode) {
  fraction = std::clamp(fraction, 0.0, 1.0);
  if (columns < 3) return "";
  std::string out;
  if (!unicode) {
    const auto full = static_cast<std::size_t>(fraction * static_cast<double>(columns - 2));
    return absl::StrCat("[", std::string(full, '#'), std::string(columns - 2 - full, '.'), "]");
  }
  static constexpr std::array<const char*, 8> kEighths{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const auto eighths = static_cast<std::size_t>(fraction * static_cast<double>(columns * 8));
  for (std::size_t i = 0; i < eighths / 8; ++i) out.append("█");
  std::size_t drawn = eighths / 8;
  if (drawn < columns && eighths % 8 != 0) {
    out.append(kEighths[eighths % 8]);
    ++drawn;
  }
  for (; drawn < columns; ++drawn) out.append("░");
  return out;
}

}  // namespace flux::ctl
