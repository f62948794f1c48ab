//! Users and their bearer tokens.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{hit, parse, parse_optional};
use super::schema::{tokens, users};
use crate::error::Result;
use crate::model::{NameRules, Role, Secret, Token, TokenId, User, UserId};

#[derive(Queryable, Insertable)]
#[diesel(table_name = users, treat_none_as_default_value = false)]
struct UserRow {
    id: String,
    name: String,
    password: String,
    role: String,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
    sees: Option<String>,
}

impl UserRow {
    fn model(self) -> Result<User> {
        Ok(User {
            id: parse("users.id", &self.id)?,
            name: parse("users.name", &self.name)?,
            password: Secret::new(self.password),
            role: parse("users.role", &self.role)?,
            sees: parse_optional("users.sees", self.sees)?,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = tokens, treat_none_as_default_value = false)]
struct TokenRow {
    id: String,
    owner: String,
    name: String,
    digest: String,
    created_at: NaiveDateTime,
    expires_at: Option<NaiveDateTime>,
}

impl TokenRow {
    fn model(self) -> Result<Token> {
        Ok(Token {
            id: parse("tokens.id", &self.id)?,
            owner: parse("tokens.owner", &self.owner)?,
            name: self.name,
            digest: parse("tokens.digest", &self.digest)?,
            created_at: self.created_at,
            expires_at: self.expires_at,
        })
    }
}

/// By name.
pub fn users(c: &mut Conn) -> Result<Vec<User>> {
    let rows = users::table.order(users::name).load::<UserRow>(&mut c.0)?;
    rows.into_iter().map(UserRow::model).collect()
}

pub fn user_named(c: &mut Conn, name: &str) -> Result<Option<User>> {
    users::table.filter(users::name.eq(name)).first::<UserRow>(&mut c.0).optional()?.map(UserRow::model).transpose()
}

/// `Exists` if the name is taken.
pub fn insert_user(c: &mut Conn, user: &User) -> Result<()> {
    let row = UserRow {
        id: user.id.to_string(),
        name: user.name.as_str().to_owned(),
        password: user.password.reveal().to_owned(),
        role: user.role.word().to_owned(),
        created_at: user.created_at,
        updated_at: user.updated_at,
        sees: user.sees.as_ref().map(NameRules::to_string),
    };
    diesel::insert_into(users::table).values(&row).execute(&mut c.0)?;
    Ok(())
}

pub fn set_password(c: &mut Conn, id: UserId, hash: &Secret, at: NaiveDateTime) -> Result<()> {
    let change = (users::password.eq(hash.reveal()), users::updated_at.eq(at));
    let rows = diesel::update(users::table.find(id.to_string())).set(change).execute(&mut c.0)?;
    hit(rows, "user", id)
}

pub fn set_role(c: &mut Conn, id: UserId, role: Role, at: NaiveDateTime) -> Result<()> {
    let change = (users::role.eq(role.word()), users::updated_at.eq(at));
    let rows = diesel::update(users::table.find(id.to_string())).set(change).execute(&mut c.0)?;
    hit(rows, "user", id)
}

pub fn set_sees(c: &mut Conn, id: UserId, sees: Option<&NameRules>, at: NaiveDateTime) -> Result<()> {
    let change = (users::sees.eq(sees.map(NameRules::to_string)), users::updated_at.eq(at));
    let rows = diesel::update(users::table.find(id.to_string())).set(change).execute(&mut c.0)?;
    hit(rows, "user", id)
}

/// The user's tokens go too.
pub fn remove_user(c: &mut Conn, id: UserId) -> Result<()> {
    hit(diesel::delete(users::table.find(id.to_string())).execute(&mut c.0)?, "user", id)
}

/// Oldest first.
pub fn tokens(c: &mut Conn) -> Result<Vec<Token>> {
    let rows = tokens::table.order((tokens::created_at, tokens::id)).load::<TokenRow>(&mut c.0)?;
    rows.into_iter().map(TokenRow::model).collect()
}

pub fn insert_token(c: &mut Conn, token: &Token) -> Result<()> {
    let row = TokenRow {
        id: token.id.to_string(),
        owner: token.owner.to_string(),
        name: token.name.clone(),
        digest: token.digest.to_string(),
        created_at: token.created_at,
        expires_at: token.expires_at,
    };
    diesel::insert_into(tokens::table).values(&row).execute(&mut c.0)?;
    Ok(())
}

pub fn remove_token(c: &mut Conn, id: TokenId) -> Result<()> {
    hit(diesel::delete(tokens::table.find(id.to_string())).execute(&mut c.0)?, "token", id)
}
