package registrytest

import (
	"io"
	"net/http"
)

// RequireBasic lets in who has these credentials.
func RequireBasic(user, password string) Wrapper {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// RequireToken lets in who has the token "granted", and gives it to me:secret and for the identity token "identity".
func RequireToken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			giveToken(w, r)
			return
		}
		if r.Header.Get("Authorization") != "Bearer granted" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="lab"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func giveToken(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	byIdentity := r.FormValue("refresh_token") == "identity"
	byPassword := user == "me" && password == "secret" || r.FormValue("username") == "me" && r.FormValue("password") == "secret"
	if !byIdentity && !byPassword {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = io.WriteString(w, `{"token":"granted","access_token":"granted","expires_in":300}`) // a client that goes away
}
