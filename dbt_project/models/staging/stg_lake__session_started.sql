{{ staged_event('session_started') }}
