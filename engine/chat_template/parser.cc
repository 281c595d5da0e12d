#include "engine/chat_template/parser.h"

#include <initializer_list>
#include <utility>

#include "engine/chat_template/expression_parser.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

// Blocks in blocks; the evaluator recurses as deep.
constexpr int kMaxBlockDepth = 50;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)), expressions_(tokens_) {}

  absl::StatusOr<Body> Run() {
    GATEHOUSE_ASSIGN_OR_RETURN(Body body, ParseBody({}));
    return body;
  }

 private:
  using EndTags = std::initializer_list<std::string_view>;

  StmtPtr Make(Stmt::Kind kind) const {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->line = tokens_.line();
    return stmt;
  }

  // "'elif', 'else' or 'endif'"
  static std::string Join(EndTags tags) {
    std::string text;
    for (const std::string_view tag : tags) {
      text += (text.empty() ? "'{% " : " or '{% ") + std::string(tag) + " %}'";
    }
    return text;
  }

  // Up to one of `end_tags`, whose name becomes the current token, or to the end if there are none.
  absl::StatusOr<Body> ParseBody(EndTags end_tags) {
    if (depth_ >= kMaxBlockDepth) return tokens_.Fail("blocks nested less deeply");
    ++depth_;
    Body body;
    while (true) {
      const Token& token = tokens_.current();
      StmtPtr stmt;
      if (token.kind == Token::Kind::kEnd) {
        if (end_tags.size() > 0) return tokens_.Fail(Join(end_tags));
        break;
      }
      if (token.kind == Token::Kind::kData) {
        stmt = Make(Stmt::Kind::kData);
        stmt->text = token.text;
        tokens_.Advance();
      } else if (token.kind == Token::Kind::kVariableBegin) {
        stmt = Make(Stmt::Kind::kPrint);
        tokens_.Advance();
        GATEHOUSE_ASSIGN_OR_RETURN(stmt->expr, expressions_.ParseTuple());
        GATEHOUSE_RETURN_IF_ERROR(tokens_.Expect(Token::Kind::kVariableEnd, "'}}'"));
      } else {
        tokens_.Advance();
        bool at_end = false;
        for (const std::string_view tag : end_tags)
          at_end = at_end || tokens_.current().IsName(tag);
        if (at_end) break;
        GATEHOUSE_ASSIGN_OR_RETURN(stmt, ParseStatement(end_tags));
        GATEHOUSE_RETURN_IF_ERROR(ExpectBlockEnd());
      }
      body.push_back(std::move(stmt));
    }
    --depth_;
    return body;
  }

  absl::Status ExpectBlockEnd() { return tokens_.Expect(Token::Kind::kBlockEnd, "'%}'"); }

  // From behind a tag's expressions to the name of the end tag.
  absl::StatusOr<Body> ParseBlock(EndTags end_tags) {
    tokens_.SkipOperator(":");
    GATEHOUSE_RETURN_IF_ERROR(ExpectBlockEnd());
    return ParseBody(end_tags);
  }

  absl::StatusOr<Body> ParseWholeBlock(std::string_view end_tag) {
    GATEHOUSE_ASSIGN_OR_RETURN(Body body, ParseBlock({end_tag}));
    tokens_.Advance();
    return body;
  }

  absl::StatusOr<StmtPtr> ParseStatement(EndTags end_tags) {
    const Token token = tokens_.current();
    if (token.IsName("for")) return ParseFor();
    if (token.IsName("if")) return ParseIf();
    if (token.IsName("set")) return ParseSet();
    if (token.IsName("macro")) return ParseMacro();
    if (token.IsName("with")) return ParseWith();
    StmtPtr stmt = Make(Stmt::Kind::kScope);
    if (token.IsName("generation")) {
      tokens_.Advance();
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->body, ParseWholeBlock("endgeneration"));
      return stmt;
    }
    if (token.IsName("filter")) {
      stmt->kind = Stmt::Kind::kFilter;
      tokens_.Advance();
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->expr, expressions_.ParseBlockFilter());
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->body, ParseWholeBlock("endfilter"));
      return stmt;
    }
    if (token.IsName("print")) {
      stmt->kind = Stmt::Kind::kPrint;
      tokens_.Advance();
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->expr, expressions_.ParseExpression());
      return stmt;
    }
    if (token.IsName("break") || token.IsName("continue")) {
      if (loop_depth_ == 0) return tokens_.Fail("a for loop around it");
      stmt->kind = token.text == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue;
      tokens_.Advance();
      return stmt;
    }
    if (end_tags.size() > 0) return tokens_.Fail("a tag of chat templates, or " + Join(end_tags));
    return tokens_.Fail("a tag of chat templates");
  }

  absl::StatusOr<StmtPtr> ParseFor() {
    StmtPtr stmt = Make(Stmt::Kind::kFor);
    tokens_.Advance();
    GATEHOUSE_RETURN_IF_ERROR(ParseTarget("in", false, &stmt->target));
    if (!tokens_.SkipName("in")) return tokens_.Fail("'in'");
    GATEHOUSE_ASSIGN_OR_RETURN(stmt->expr, expressions_.ParseTuple(false, "recursive"));
    if (tokens_.SkipName("if")) {
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->condition, expressions_.ParseExpression());
    }
    tokens_.SkipName("recursive");  // changes nothing but that loop() may be called, which fails
    ++loop_depth_;
    GATEHOUSE_ASSIGN_OR_RETURN(stmt->body, ParseBlock({"endfor", "else"}));
    --loop_depth_;
    if (tokens_.SkipName("else")) {
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->else_body, ParseBlock({"endfor"}));
    }
    tokens_.Advance();
    return stmt;
  }

  absl::StatusOr<StmtPtr> ParseIf() {
    StmtPtr first = Make(Stmt::Kind::kIf);
    Stmt* stmt = first.get();
    int num_branches = 0;
    do {
      tokens_.Advance();
      if (stmt->expr != nullptr) {  // an elif
        stmt->else_body.push_back(Make(Stmt::Kind::kIf));
        stmt = stmt->else_body.back().get();
      }
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->expr, expressions_.ParseTuple(false));
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->body, ParseBlock({"elif", "else", "endif"}));
      if (++num_branches > kMaxBranches) return tokens_.Fail("fewer branches of 'if'");
    } while (tokens_.current().IsName("elif"));
    if (tokens_.SkipName("else")) {
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->else_body, ParseBlock({"endif"}));
    }
    tokens_.Advance();
    return first;
  }

  absl::StatusOr<StmtPtr> ParseSet() {
    StmtPtr stmt = Make(Stmt::Kind::kSet);
    tokens_.Advance();
    GATEHOUSE_RETURN_IF_ERROR(ParseTarget("", true, &stmt->target));
    if (tokens_.SkipOperator("=")) {
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->expr, expressions_.ParseTuple());
      return stmt;
    }
    stmt->kind = Stmt::Kind::kSetBlock;
    if (tokens_.SkipOperator("|")) {
      GATEHOUSE_ASSIGN_OR_RETURN(stmt->expr, expressions_.ParseBlockFilter());
    }
    if (tokens_.current().kind != Token::Kind::kBlockEnd) return tokens_.Fail("'=' or '%}'");
    GATEHOUSE_ASSIGN_OR_RETURN(stmt->body, ParseWholeBlock("endset"));
    return stmt;
  }

  absl::StatusOr<StmtPtr> ParseWith() {
    StmtPtr stmt = Make(Stmt::Kind::kWith);
    tokens_.Advance();
    while (tokens_.current().kind != Token::Kind::kBlockEnd) {
      if (!stmt->assignments.empty()) GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      std::string name;
      GATEHOUSE_RETURN_IF_ERROR(ParseName(&name));
      GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator("="));
      GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr value, expressions_.ParseExpression());
      stmt->assignments.emplace_back(std::move(name), std::move(value));
    }
    GATEHOUSE_ASSIGN_OR_RETURN(stmt->body, ParseWholeBlock("endwith"));
    return stmt;
  }

  absl::StatusOr<StmtPtr> ParseMacro() {
    StmtPtr stmt = Make(Stmt::Kind::kMacro);
    stmt->macro = std::make_unique<Macro>();
    Macro& macro = *stmt->macro;
    tokens_.Advance();
    GATEHOUSE_RETURN_IF_ERROR(ParseName(&macro.name));
    GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    while (!tokens_.current().IsOperator(")")) {
      if (!macro.params.empty()) GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      std::string name;
      GATEHOUSE_RETURN_IF_ERROR(ParseName(&name));
      macro.params.push_back(std::move(name));
      if (tokens_.SkipOperator("=")) {
        GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr value, expressions_.ParseExpression());
        macro.defaults.push_back(std::move(value));
      } else if (!macro.defaults.empty()) {
        return tokens_.Fail("a default value, as the parameter before has one");
      }
    }
    tokens_.Advance();
    const int loops_around = std::exchange(loop_depth_, 0);
    GATEHOUSE_ASSIGN_OR_RETURN(macro.body, ParseWholeBlock("endmacro"));
    loop_depth_ = loops_around;
    return stmt;
  }

  absl::Status ParseName(std::string* name) {
    const Token& token = tokens_.current();
    for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
      if (token.IsName(constant)) return tokens_.Fail("a name to assign to");
    }
    *name = token.text;
    return tokens_.Expect(Token::Kind::kName, "a name to assign to");
  }

  absl::Status ParseTarget(std::string_view end_name, bool with_attribute, Target* target) {
    const bool parentheses = tokens_.SkipOperator("(");
    while (true) {
      std::string name;
      GATEHOUSE_RETURN_IF_ERROR(ParseName(&name));
      target->names.push_back(std::move(name));
      if (with_attribute && target->names.size() == 1 && tokens_.SkipOperator(".")) {
        return ParseName(&target->attribute);
      }
      if (!tokens_.SkipOperator(",")) break;
      target->is_tuple = true;
      if (tokens_.current().IsOperator(")") || tokens_.current().IsName(end_name)) break;
    }
    return parentheses ? tokens_.ExpectOperator(")") : absl::OkStatus();
  }

  // An elif is an if in the else of the one before: they recurse, too.
  static constexpr int kMaxBranches = 100;

  TokenStream tokens_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loop_depth_ = 0;
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace gatehouse::jinja
